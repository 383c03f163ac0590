"""How often a true gain is found `better`, by simulation and by the normal approximation.

The scores are binormal: in each class, the two models' scores have a bivariate normal distribution with unit
variances and the same correlation. The AUC of the reference model is that of the real baseline. With the
correlation chosen, two equal models have the standard error of the difference of the two real ones.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import owens_t
from scipy.stats import norm

from bench.bars import Bar
from bench.verdict.scores import Scores
from sentiment.evaluation.verdict import compare_scores
from sentiment.intervals import estimate_auc

GAINS = (0.002, 0.005, 0.01)
ROWS = (1_000, 5_000, 25_000)
DRAWS = 2_000
"""Simulated comparisons in each cell: the Monte Carlo standard error of a power is at most 1.1 points."""
TOLERANCE = 0.03


@dataclass(frozen=True)
class Binormal:
    """Two models whose scores are bivariate normal in each class.

    Attributes:
        auc: AUC of the reference model.
        correlation: correlation of the two scores within a class.
    """

    auc: float
    correlation: float

    @classmethod
    def match(cls, scores: Scores) -> "Binormal":
        """Return the model with the AUC and the standard error of the difference of two real models."""
        auc = estimate_auc(scores.labels, scores.first).value
        deviation = scores.compute_deviation()

        def excess(correlation: float) -> float:
            return cls(auc, correlation).compute_deviation(0.0) - deviation

        return cls(auc, float(brentq(excess, 0.0, 1 - 1e-9)))

    def compute_deviation(self, gain: float) -> float:
        """Return the standard error of the difference in AUC, times the square root of the reviews.

        A placement value is the normal distribution function of a score. So the moments of two of them are
        bivariate normal probabilities, and those of both classes are equal. Half of the reviews are positive.

        Args:
            gain: AUC of the model minus AUC of the reference model.
        """
        first, second = norm.ppf(self.auc + gain), norm.ppf(self.auc)
        variance = (
            compute_bivariate_normal(first, first, 0.5)
            + compute_bivariate_normal(second, second, 0.5)
            - 2 * compute_bivariate_normal(first, second, self.correlation / 2)
            - gain**2
        )
        return float(np.sqrt(4 * variance))

    def draw(
        self, rows: int, gain: float, rng: np.random.Generator
    ) -> tuple[NDArray[np.int8], NDArray[np.float64], NDArray[np.float64]]:
        """Draw labels, scores of the model and scores of the reference model."""
        labels = np.arange(rows, dtype=np.int8) % 2
        first, second = rng.normal(size=(2, rows))
        second = self.correlation * first + np.sqrt(1 - self.correlation**2) * second
        shifts = (np.sqrt(2) * norm.ppf(auc) for auc in (self.auc + gain, self.auc))
        return labels, *(
            scores + labels * shift for scores, shift in zip((first, second), shifts, strict=True)
        )


def compute_bivariate_normal(h: float, k: float, correlation: float) -> float:
    """Return P(X < h, Y < k) of standard normal variables, for positive h and k (Owen 1956)."""
    root = np.sqrt(1 - correlation**2)
    return float(
        (norm.cdf(h) + norm.cdf(k)) / 2
        - owens_t(h, (k / h - correlation) / root)
        - owens_t(k, (h / k - correlation) / root)
    )


def compute_power(binormal: Binormal, gain: float, rows: int, confidence_level: float) -> float:
    """Return the probability of `better` by the normal approximation."""
    standard_error = binormal.compute_deviation(gain) / np.sqrt(rows)
    return float(norm.cdf(gain / standard_error - norm.ppf((1 + confidence_level) / 2)))


def simulate_power(
    binormal: Binormal, gain: float, rows: int, confidence_level: float, margin: float, draws: int = DRAWS
) -> float:
    """Return the share of simulated comparisons with the verdict `better`."""
    rng = np.random.default_rng([rows, round(gain * 1e6)])
    found = 0
    for _ in range(draws):
        labels, scores, reference = binormal.draw(rows, gain, rng)
        found += compare_scores(
            labels, scores, reference, confidence_level=confidence_level, margin=margin
        ).is_better
    return found / draws


def find_visible_gain(binormal: Binormal, rows: int, confidence_level: float, power: float = 0.8) -> float:
    """Return the smallest gain that is found `better` with this probability."""
    return float(
        brentq(lambda gain: compute_power(binormal, gain, rows, confidence_level) - power, 1e-6, 0.02)
    )


def power_bars(scores: Scores, confidence_level: float, margin: float) -> list[Bar]:
    """Print the table for docs/evaluation.md; return a bar for each cell."""
    binormal = Binormal.match(scores)
    print(
        f"\nBinormal scores: AUC {binormal.auc:.4f}, correlation {binormal.correlation:.3f}; standard error "
        f"of the difference of equal models: {binormal.compute_deviation(0.0):.4f} / sqrt(reviews)\n"
    )
    print(f"| reviews | {' | '.join(f'+{gain:g}' for gain in GAINS)} | found in 80% of cases |")
    print(f"| --- |{' --- |' * (len(GAINS) + 1)}")
    bars = []
    for rows in ROWS:
        cells = []
        for gain in GAINS:
            expected = compute_power(binormal, gain, rows, confidence_level)
            found = simulate_power(binormal, gain, rows, confidence_level, margin)
            cells.append(f"{found:.0%}")
            bars.append(
                Bar(
                    f"`better` at a gain of {gain:g} on {rows:,} reviews; normal approximation",
                    f"{found:.1%}; {expected:.1%}",
                    f"within {TOLERANCE:.0%}",
                    abs(found - expected) <= TOLERANCE,
                )
            )
        visible = find_visible_gain(binormal, rows, confidence_level)
        print(f"| {rows:,} | {' | '.join(cells)} | +{visible:.4f} |", flush=True)
    return bars

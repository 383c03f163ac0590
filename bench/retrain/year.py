"""Years of weekly retrainings without any true gain, through the rules of the model gate.

One test split decides on all challengers of a year. Their scores are normal in each class, and those of any
two models have the same correlation, as in the part `power` of `make bench-verdict`. So the challengers of a
year are compared with the same scores of the champion, and the same errors of the anchor, week after week.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from bench.bars import Bar
from sentiment.evaluation.verdict import Comparison
from sentiment.evaluation.verdict import decide as decide_verdict
from sentiment.intervals import Estimate
from sentiment.params import load_params
from sentiment.retraining.gate_result import GateComparison, Role
from sentiment.retraining.model_gate import LEVEL, choose_margin, decide

YEARS = 500
WEEKS = 52
ROWS = 5_000
"""Reviews of the default test split; half of them are positive."""

AUC, CORRELATION = 0.9723, 0.976
"""AUC of the default baseline, and correlation in each class at which two equal models have the standard
error of the difference between baseline and tuned model, 0.0387 / sqrt(reviews), by `make bench-verdict`."""

MAX_MARGIN = 0.02
"""`retrain.max_margin`, which a test split of this size does not reach."""

SEED_DEVIATION = 0.0005
"""Standard deviation of the AUC of a configuration over its seeds."""


@dataclass(frozen=True)
class Scenario:
    """What the challengers of a year are.

    Attributes:
        name: name in the table.
        data_changed: whether each challenger has learned from new reviews.
        deviation: standard deviation of the challengers' true AUCs around that of the first champion.
        loss: true AUC by which each challenger is lower than the champion that it meets; the deviation is
            then not used.
        has_anchor: False to leave out the comparison with the anchor.
    """

    name: str
    data_changed: bool
    deviation: float = 0.0
    loss: float = 0.0
    has_anchor: bool = True


@dataclass(frozen=True)
class Model:
    """A simulated model.

    Attributes:
        auc: its true AUC.
        placements: placement values on the test split, from `compute_placements`.
    """

    auc: float
    placements: NDArray[np.float64]


@dataclass(frozen=True)
class Year:
    """What happened in a year.

    Attributes:
        promoted: number of promotions.
        better: number of promotions with the verdict `better`.
        lost: true AUC of the first champion minus that of the last one.
        margin: largest margin that was used.
    """

    promoted: int
    better: int
    lost: float
    margin: float


class SimulatedSplit:
    """A test split of a year, and what all models have in common on it.

    Args:
        rows: number of reviews, half of them positive.
        rng: source of the scores.
    """

    def __init__(self, rows: int, rng: np.random.Generator) -> None:
        self.positive = rows // 2
        self._rng = rng
        self._shared = np.sqrt(CORRELATION) * rng.normal(size=rows)

    def train(self, auc: float) -> Model:
        """Return a model with this true AUC. The first half of the reviews is positive."""
        own = self._rng.normal(size=len(self._shared))
        scores = self._shared + np.sqrt(1 - CORRELATION) * own
        scores[: self.positive] += np.sqrt(2) * norm.ppf(auc)
        return Model(auc, compute_placements(scores, self.positive))

    def compare(self, model: Model, reference: Model, level: float, margin: float) -> GateComparison:
        """Compare two models as the model gate does, by DeLong's method."""
        estimate = estimate_difference(model.placements - reference.placements, self.positive)
        used = choose_margin(estimate.standard_error, level, margin, MAX_MARGIN)
        interval = estimate.compute_interval(1 - 2 * level)
        verdict = decide_verdict(interval, used)
        comparison = Comparison(verdict, estimate.value, interval, len(self._shared), None)
        return GateComparison("", comparison, used)


def compute_placements(scores: NDArray[np.float64], positive: int) -> NDArray[np.float64]:
    """Compute DeLong's placement values of scores without ties, shape (reviews,).

    Args:
        scores: scores of the reviews, positive ones first.
        positive: number of positive reviews.
    """
    above, below = scores[:positive], scores[positive:]
    return np.concatenate(
        [
            np.searchsorted(np.sort(below), above) / len(below),
            1 - np.searchsorted(np.sort(above), below) / len(above),
        ]
    )


def estimate_difference(differences: NDArray[np.float64], positive: int) -> Estimate:
    """Estimate a difference in AUC from the differences of placement values."""
    parts = differences[:positive], differences[positive:]
    variance = sum(part.var(ddof=1) / len(part) for part in parts)
    return Estimate(float(parts[0].mean()), float(np.sqrt(variance)), -1.0)


def simulate_year(scenario: Scenario, margin: float, rng: np.random.Generator, rows: int = ROWS) -> Year:
    """Simulate a year of weekly retrainings, with one test split.

    Args:
        scenario: what the challengers are.
        margin: `evaluate.margin`.
        rng: source of the scores.
        rows: reviews of the test split.
    """
    split = SimulatedSplit(rows, rng)
    champion = anchor = split.train(AUC)
    promoted, better, largest_margin = 0, 0, 0.0
    for _ in range(WEEKS):
        auc = champion.auc - scenario.loss if scenario.loss else AUC + scenario.deviation * rng.normal()
        challenger = split.train(auc)
        references: dict[Role, Model] = {"champion": champion}
        if scenario.has_anchor and anchor is not champion:
            references["anchor"] = anchor
        comparisons = {
            role: split.compare(challenger, reference, LEVEL / WEEKS, margin)
            for role, reference in references.items()
        }
        largest_margin = max(largest_margin, *(found.margin for found in comparisons.values()))
        outcome, verdict, _ = decide(comparisons, data_changed=scenario.data_changed)
        if outcome == "promote":
            promoted += 1
            champion = challenger
            if verdict == "better":
                better += 1
                anchor = challenger
    return Year(promoted, better, AUC - champion.auc, largest_margin)


def simulate_years(scenario: Scenario, margin: float, years: int = YEARS) -> list[Year]:
    """Simulate independent years."""
    rng = np.random.default_rng(0)
    return [simulate_year(scenario, margin, rng) for _ in range(years)]


def year_bars() -> list[Bar]:
    """Return the bars on false gains and on lost AUC."""
    margin = load_params().evaluate.margin
    return [
        superiority_bar(Scenario("equal models, the same data", data_changed=False), margin),
        superiority_bar(Scenario("equal models, new data", data_changed=True), margin),
        *loss_bars(Scenario("new data, seeds differ", data_changed=True, deviation=SEED_DEVIATION), margin),
        *loss_bars(Scenario("new data, each 0.0005 lower", data_changed=True, loss=0.0005), margin),
        *loss_bars(
            Scenario("each 0.0005 lower, no anchor", data_changed=True, loss=0.0005, has_anchor=False), margin
        ),
    ]


def superiority_bar(scenario: Scenario, margin: float, years: int = YEARS) -> Bar:
    """Return the bar on the years in which a model without a true gain is promoted as better."""
    found = sum(year.better > 0 for year in simulate_years(scenario, margin, years)) / years
    return Bar(
        f"{scenario.name}: years with a promotion as `better`, of {years}",
        f"{found:.1%}",
        f"≤ {LEVEL:.1%}",
        found <= LEVEL,
    )


def loss_bars(scenario: Scenario, margin: float, years: int = YEARS) -> list[Bar]:
    """Return the bar on the AUC lost at the year's end, and how often models are promoted."""
    simulated = simulate_years(scenario, margin, years)
    losses = np.array([year.lost for year in simulated])
    used = max(year.margin for year in simulated)
    exceeding = float(np.mean(losses > used))
    promoted = np.mean([year.promoted for year in simulated])
    quantile = np.quantile(losses, 0.975)
    return [
        Bar(
            f"{scenario.name}: AUC lost against the first champion at the year's end, margin {used:.4f}",
            f"mean {losses.mean():.4f}, 97.5% of years ≤ {quantile:.4f}, largest {losses.max():.4f}",
            f"≤ margin in ≥ {1 - LEVEL:.1%} of years" if scenario.has_anchor else "for comparison",
            exceeding <= LEVEL if scenario.has_anchor else None,
        ),
        Bar(f"{scenario.name}: promotions a year", f"{promoted:.1f} of {WEEKS}", "", None),
    ]

"""The checks of the data gate, each against its limit in the section `retrain.data`."""

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentiment import paths
from sentiment.intervals import DECIMALS
from sentiment.model.predictor import EncodedTexts, Predictor
from sentiment.params.retrain import DataGateLimits
from sentiment.repository import run_git
from sentiment.retraining.drift import compute_ks, compute_psi
from sentiment.retraining.new_rows import DataChange, Rows
from sentiment.tokens.vocabulary import UNKNOWN_ID

NOT_KNOWN = "not known"
"""Value of a measurement whose inputs are not available."""

IMPROBABLE = 0.1
"""Probability below which the champion considers a label improbable."""

MAX_EXAMPLES = 10
"""Maximum number of rows that a violation lists."""

KNOWN_ROWS = 2_000
"""Number of known rows whose texts are compared with those of the new ones."""

MAX_ROWS = 10_000
"""Maximum number of new rows whose texts are compared and predicted; of more, those with the smallest
fingerprints, which is a random sample."""


@dataclass(frozen=True)
class Violation:
    """A limit that the data exceed.

    Attributes:
        check: name of the limit, a parameter of `retrain.data`.
        message: one sentence with the value and the limit.
        examples: rows that show it, the clearest first, each with its source and the beginning of its text.
    """

    check: str
    message: str
    examples: Sequence[str] = ()


@dataclass
class Checks:
    """Collects measurements, and violations of the limits in the section `retrain.data`."""

    limits: DataGateLimits
    measurements: dict[str, Any] = field(default_factory=dict)
    violations: list[Violation] = field(default_factory=list)

    def add(
        self,
        name: str,
        value: float,
        sentence: str,
        list_examples: Callable[[], Sequence[str]] = tuple,
        *,
        is_fraction: bool = True,
    ) -> None:
        """Compare a value with the limit of its name.

        Args:
            name: name of the measurement and the limit.
            value: measured value.
            sentence: what was measured, with {} for the value.
            list_examples: function that returns the rows that show it.
            is_fraction: whether the message has the value in per cent.
        """
        limit = float(getattr(self.limits, name))
        self.measurements.setdefault(name, round(value, DECIMALS))
        if value > limit:
            shown, bound = (f"{n:.1%}" if is_fraction else f"{n:.2f}" for n in (value, limit))
            message = f"{sentence.format(shown)}, more than retrain.data.{name} ({bound})"
            self.violations.append(Violation(name, message, list(list_examples())[:MAX_EXAMPLES]))


def check_lost(checks: Checks, change: DataChange) -> None:
    """Check how many texts are lost: of all, and of each source with at least `min_rows` rows."""
    shares = {"the rows": len(change.lost) / max(1, change.seen)}
    checks.measurements |= {"lost_rows": len(change.lost), "lost": round(shares["the rows"], DECIMALS)}
    before = change.before
    rows: dict[str, NDArray[np.bool_]] = {}
    if before is not None:
        is_lost = np.isin(before.fingerprints, change.lost)
        for source in np.unique(before.sources):
            mask = before.sources == source
            if mask.sum() >= checks.limits.min_rows:
                name = f"the rows of source {source}"
                rows[name] = mask & is_lost
                shares[name] = float(is_lost[mask].mean())
        rows["the rows"] = is_lost
    worst = max(shares, key=shares.__getitem__)
    checks.measurements["lost_of_a_source"] = NOT_KNOWN if before is None else round(shares[worst], DECIMALS)

    def list_examples() -> list[str]:
        if before is None:
            return []
        return [before.describe(int(row)) for row in np.flatnonzero(rows[worst])[:MAX_EXAMPLES]]

    checks.add(
        "lost",
        shares[worst],
        f"{{}} of {worst} that the champion has learned from are in no split any more: removed from the "
        f"source, or listed in {paths.QUARANTINE}",
        list_examples,
    )


def check_growth(checks: Checks, rows: int, previous_rows: int) -> None:
    """Check how the number of new rows changed since the retraining before."""
    ratio = max(rows / previous_rows, previous_rows / rows)
    checks.add(
        "growth",
        ratio,
        f"{rows:,} rows are new after {previous_rows:,} in the retraining before, a factor of {{}}",
        is_fraction=False,
    )


def check_duplicates(checks: Checks, new: Rows, commit: str) -> None:
    """Check how many of the rows that arrived were duplicates, or are near-duplicates of test reviews."""
    current, before = (
        json.loads(content or b"{}")
        for content in (
            paths.metrics("download").read_bytes(),
            run_git("show", f"{commit}:./{paths.metrics('download').as_posix()}"),
        )
    )
    if not before.keys() >= {"dropped_duplicates", "duplicates_of_test"}:
        checks.measurements |= {"duplicates": NOT_KNOWN, "duplicates_of_test": NOT_KNOWN}
        return
    dropped, of_test = (
        max(0, sum(current[name].values()) - sum(before[name].values()))
        for name in ("dropped_duplicates", "duplicates_of_test")
    )
    near = _find_near_duplicates(new)
    arrived = len(new) + dropped
    if arrived < checks.limits.min_rows:
        return
    what = f"of {arrived:,} rows that are new or were dropped since the champion was trained, {{}} are"
    checks.add(
        "duplicates_of_test",
        (of_test + len(near)) / arrived,
        f"{what} duplicates or near-duplicates of test reviews (near-duplicates: {paths.NEAR_DUPLICATES})",
        lambda: [new.describe(row) for row in near],
    )
    checks.add("duplicates", dropped / arrived, f"{what} duplicates of other rows")


def _find_near_duplicates(rows: Rows) -> list[int]:
    """Return the positions of the rows that are near-duplicates of test reviews."""
    with paths.NEAR_DUPLICATES.open(encoding="utf-8", newline="") as file:
        listed = {(pair["source"], pair["row"]) for pair in csv.DictReader(file)}
    return [position for position, location in enumerate(rows.locations) if location in listed]


def check_contents(checks: Checks, change: DataChange, champion: Predictor) -> None:
    """Compare the texts and labels of the new rows with those of the known ones."""
    known, new = _sample(change.known, KNOWN_ROWS), _sample(change.new, MAX_ROWS)
    encoded = champion.encode(new.texts)
    _check_vocabulary(checks, new, encoded, champion.encode(known.texts))
    _check_upper_case(checks, known, new)
    _check_lengths(checks, known, new)
    _check_labels(checks, change)
    _check_disagreement(checks, new, champion.predict_encoded(encoded))


def check_known_labels(checks: Checks, known: Rows, champion: Predictor) -> None:
    """Check the labels of known rows, if those that the champion has learned from are not available."""
    known = _sample(known, KNOWN_ROWS)
    if len(known) >= checks.limits.min_rows:
        _check_disagreement(checks, known, champion.predict_encoded(champion.encode(known.texts)), "known")


def _sample(rows: Rows, size: int) -> Rows:
    """Return the rows with the smallest fingerprints, in their order."""
    if len(rows) <= size:
        return rows
    return rows.take(np.sort(np.argsort(rows.fingerprints)[:size]))


def _check_vocabulary(checks: Checks, rows: Rows, new: EncodedTexts, known: EncodedTexts) -> None:
    unknown, known_unknown = (
        np.asarray(texts.tokens.ids == UNKNOWN_ID, dtype=np.float64) for texts in (new, known)
    )
    rate, known_rate = float(unknown.mean()), float(known_unknown.mean())
    counts = np.diff(np.concatenate([[0.0], np.cumsum(unknown)])[new.tokens.offsets])
    rates = counts / np.maximum(new.tokens.lengths, 1)
    checks.measurements["oov_rate"] = _pair_of(rate, known_rate)
    checks.add(
        "oov_rate",
        rate - known_rate,
        f"the out-of-vocabulary rate of the new rows is {rate:.1%}, with the champion's vocabulary, and "
        f"{known_rate:.1%} of known ones: an increase of {{}}",
        lambda: [rows.describe(row, f"{rates[row]:.0%}: ") for row in _order(-rates)],
    )


def _check_upper_case(checks: Checks, known: Rows, new: Rows) -> None:
    shares, known_shares = (np.array(list(map(_compute_upper_case, rows.texts))) for rows in (new, known))
    share, known_share = float(shares.mean()), float(known_shares.mean())
    checks.measurements["upper_case"] = _pair_of(share, known_share)
    checks.add(
        "upper_case",
        abs(share - known_share),
        f"{share:.1%} of the letters of the new rows are in upper case, and {known_share:.1%} of known ones: "
        "a difference of {}",
        lambda: [new.describe(row) for row in _order(-abs(shares - known_share))],
    )


def _compute_upper_case(text: str) -> float:
    letters = sum(map(str.isalpha, text))
    return sum(map(str.isupper, text)) / max(1, letters)


def _check_lengths(checks: Checks, known: Rows, new: Rows) -> None:
    words, known_words = (
        np.array([len(text.split()) for text in rows.texts], dtype=np.float64) for rows in (new, known)
    )
    median, known_median = float(np.median(words)), float(np.median(known_words))
    checks.measurements["words"] = _pair_of(median, known_median)
    medians = f"the median is {median:.0f} words, of known ones {known_median:.0f}"

    def list_examples() -> list[str]:
        distance = np.log((words + 1) / (known_median + 1)) * np.sign(median - known_median)
        return [new.describe(row, f"{words[row]:.0f} words: ") for row in _order(-distance)]

    for name, compute in (("length_psi", compute_psi), ("length_ks", compute_ks)):
        statistic = {"length_psi": "population stability index", "length_ks": "Kolmogorov-Smirnov statistic"}
        checks.add(
            name,
            compute(known_words, words),
            f"the new rows have other lengths ({medians}), with a {statistic[name]} of {{}}",
            list_examples,
            is_fraction=False,
        )


def _check_labels(checks: Checks, change: DataChange) -> None:
    share, known_share = float(change.new.labels.mean()), float(change.known.labels.mean())
    checks.measurements["positive"] = _pair_of(share, known_share)
    checks.add(
        "positive",
        abs(share - known_share),
        f"{share:.1%} of the new rows are positive, and {known_share:.1%} of known ones: a difference of "
        "{}",
    )


def _check_disagreement(
    checks: Checks, rows: Rows, probabilities: NDArray[np.float64], which: str = "new"
) -> None:
    """Check how many labels the champion considers improbable; wrong labels show here first.

    A calibrated champion gives q to the less probable label of a row, and expects it to be right in a share q
    of these rows. Only what exceeds this sum counts, so that the limit does not depend on how good it is.
    """
    of_label = np.where(rows.labels == 1, probabilities, 1 - probabilities)
    less_probable = np.minimum(probabilities, 1 - probabilities)
    share = float(np.mean(of_label < IMPROBABLE))
    expected = float(np.mean(less_probable * (less_probable < IMPROBABLE)))
    checks.measurements.setdefault("improbable_labels", {}).update(
        {which: round(share, DECIMALS), f"expected of {which}": round(expected, DECIMALS)}
    )
    names = ("negative", "positive")
    checks.add(
        "disagreement",
        share - expected,
        f"the champion gives the label of {share:.1%} of the {which} rows a probability below {IMPROBABLE}, "
        f"where {expected:.1%} are expected: an excess of {{}}",
        lambda: [
            rows.describe(row, f"{names[rows.labels[row]]}, probability {of_label[row]:.2g}: ")
            for row in _order(of_label)
        ],
    )


def _pair_of(new: float, known: float) -> dict[str, float]:
    return {"new": round(new, DECIMALS), "known": round(known, DECIMALS)}


def _order(values: NDArray[np.float64]) -> list[int]:
    """Return the positions of the smallest values, smallest first."""
    return [int(position) for position in np.argsort(values, kind="stable")[:MAX_EXAMPLES]]

"""Checks of new rows: each measures what its name says, and shows the rows."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from sentiment.data.parquet import ORIGIN_SCHEMA
from sentiment.params.retrain import DataGateLimits
from sentiment.retraining.data_checks import Checks, check_growth, check_lost
from sentiment.retraining.data_checks import _check_disagreement as check_disagreement
from sentiment.retraining.drift import compute_ks, compute_psi
from sentiment.retraining.new_rows import DataChange, Rows

LIMITS: dict[str, Any] = {
    "min_rows": 50,
    "growth": 20.0,
    "lost": 0.1,
    "positive": 0.2,
    "duplicates": 0.5,
    "duplicates_of_test": 0.02,
    "oov_rate": 0.05,
    "upper_case": 0.1,
    "length_psi": 0.25,
    "length_ks": 0.2,
    "disagreement": 0.03,
}


@pytest.fixture
def checks() -> Checks:
    return Checks(DataGateLimits.model_validate(LIMITS))


def rows_of(labels: list[int], source: str = "mine", first: int = 0) -> Rows:
    """Rows with distinct texts."""
    numbers = range(first, first + len(labels))
    return Rows(
        pa.Table.from_pydict(
            {
                "text": [f"Film {number}." for number in numbers],
                "label": labels,
                "source": [source] * len(labels),
                "row": [f"a.csv row {number}" for number in numbers],
                "group": [None] * len(labels),
            },
            ORIGIN_SCHEMA,
        )
    )


def change_of(new: Rows, before: Rows | None = None, lost: int = 0) -> DataChange:
    """A change in which the first `lost` of the rows of the champion are gone."""
    gone = np.sort(before.fingerprints[:lost]) if before else np.empty(0, np.uint64)
    return DataChange(new, new, 0, gone, len(before) if before else 1, has_changed=True, before=before)


def test_index_of_equal_distributions_is_small_and_of_others_large() -> None:
    rng = np.random.default_rng(0)
    known, new = rng.lognormal(5, 1, 5_000), rng.lognormal(5, 1, 1_000)
    assert compute_psi(known, known) == 0
    assert compute_psi(known, new) < 0.03
    assert compute_psi(known, 2 * new) > 0.25
    assert compute_ks(known, new) < 0.05
    assert compute_ks(known, 2 * new) > 0.2
    assert np.isfinite(compute_psi(np.ones(100), np.zeros(100)))


def test_index_is_the_sum_over_the_deciles() -> None:
    known, new = np.arange(1_000.0), np.repeat(np.arange(500.0), 2)
    # Half of the deciles have twice as many rows, the other half none (but the smoothing).
    twice, none = np.log(200.5 / 100.5), np.log(0.5 / 100.5)
    assert compute_psi(known, new) == pytest.approx(
        5 * 100 / 1_005 * twice - 5 * 100 / 1_005 * none, rel=0.01
    )


def test_flipped_labels_exceed_what_a_calibrated_champion_expects(checks: Checks) -> None:
    rng = np.random.default_rng(0)
    probabilities = np.where(rng.random(1_000) < 0.5, 0.03, 0.97)
    labels = (rng.random(1_000) < probabilities).astype(int)
    check_disagreement(checks, rows_of(labels.tolist()), probabilities)
    assert not checks.violations
    assert checks.measurements["improbable_labels"]["expected of new"] == 0.03
    flipped = labels.copy()
    flipped[:100] = 1 - flipped[:100]
    probabilities[7] = 0.001 if flipped[7] else 0.999
    checks.measurements.clear()
    check_disagreement(checks, rows_of(flipped.tolist()), probabilities)
    (violation,) = checks.violations
    assert checks.measurements["disagreement"] == pytest.approx(0.1, abs=0.02)
    assert violation.message.endswith("more than retrain.data.disagreement (3.0%)")
    name = "positive" if flipped[7] else "negative"
    assert violation.examples[0] == f"mine: a.csv row 7: {name}, probability 0.001: Film 7."
    assert len(violation.examples) == 10


def test_rows_lost_of_one_source_are_named(checks: Checks) -> None:
    small = rows_of([0, 1] * 50, source="small")
    before = Rows(pa.concat_tables([small.table, rows_of([0, 1] * 1_000, first=100).table]))
    check_lost(checks, change_of(small, before, lost=40))
    (violation,) = checks.violations
    assert violation.message.startswith("40.0% of the rows of source small that the champion has learned")
    assert violation.examples[0] == "small: a.csv row 0: Film 0."
    assert checks.measurements["lost"] == pytest.approx(40 / 2_100, abs=1e-6)


def test_rows_lost_of_a_tiny_source_are_allowed(checks: Checks) -> None:
    tiny = rows_of([0, 1] * 5, source="tiny")
    before = Rows(pa.concat_tables([tiny.table, rows_of([0, 1] * 1_000, first=100).table]))
    check_lost(checks, change_of(tiny, before, lost=10))
    assert not checks.violations


@pytest.mark.parametrize(
    ("rows", "is_violated"), [(1_000, False), (49_000, True), (2_000, False), (90, True)]
)
def test_size_of_a_batch_is_compared_with_the_one_before(
    checks: Checks, rows: int, is_violated: bool
) -> None:
    check_growth(checks, rows, 2_000)
    assert bool(checks.violations) == is_violated


def test_digest_depends_on_texts_and_labels_alone() -> None:
    rows = rows_of([0, 1, 1])
    digest = change_of(rows).compute_digest()
    assert digest == change_of(rows.take(np.array([2, 0, 1]))).compute_digest()
    assert digest != change_of(rows_of([1, 1, 1])).compute_digest()
    assert digest != change_of(rows, rows_of([0], first=9), lost=1).compute_digest()
    shouted = Rows(rows.table.set_column(0, "text", pa.array(["FILM 0.", "Film 1.", "Film 2."])))
    assert digest != change_of(shouted).compute_digest()
    assert change_of(rows.take(np.zeros(3, dtype=bool))).compute_digest() is None

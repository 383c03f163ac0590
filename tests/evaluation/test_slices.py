"""Slices of a split: which reviews are in them, and when one is reported as worse than the whole."""

import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from sentiment.errors import UserError
from sentiment.evaluation.slices import (
    SliceDefinition,
    SliceResult,
    compute_slices,
    define_slices,
    measure_slices,
    tabulate_slices,
)
from sentiment.intervals import compute_delong_interval
from sentiment.tokens.encoding import encode
from sentiment.tokens.token_store import TokenizedReviews
from tests.tokens.small_tokenizer import train_small_tokenizer


def _table(texts: Sequence[str], groups: Sequence[str | None] | None = None, source: str = "a") -> pa.Table:
    return pa.table(
        {
            "text": list(texts),
            "label": pa.array([0, 1] * len(texts), pa.int8()).slice(0, len(texts)),
            "source": [source] * len(texts),
            "group": pa.array(groups or [None] * len(texts), pa.string()),
        }
    )


def _members(definitions: list[SliceDefinition], criterion: str) -> dict[str, list[int]]:
    """Return the rows of each slice by what follows the criterion in its name."""
    return {
        d.name.removeprefix(f"{criterion}_"): np.flatnonzero(d.members).tolist()
        for d in definitions
        if d.name.startswith(f"{criterion}_")
    }


def _tokens(texts: Sequence[str], vocabulary: Sequence[str]) -> TokenizedReviews:
    return encode(train_small_tokenizer(vocabulary, 1000), _table(texts))


def test_every_real_review_is_in_one_slice_of_each_criterion(reviews: pa.Table) -> None:
    table = _table(reviews["text"].to_pylist())
    tokens = _tokens(table["text"].to_pylist(), table["text"].to_pylist()[:150])
    definitions = define_slices(table, tokens)
    criteria = ("length", "oov", "negation", "source")
    assert {d.name.split("_")[0] for d in definitions} == set(criteria)
    for criterion in criteria:
        rows = [row for members in _members(definitions, criterion).values() for row in members]
        assert sorted(rows) == list(range(200))
    quartiles = _members(definitions, "length")
    assert all(45 <= len(quartile) <= 55 for quartile in quartiles.values())
    longest, shortest = quartiles["quartile_4"], quartiles["quartile_1"]
    assert tokens.lengths[longest].min() > tokens.lengths[shortest].max()
    assert 40 <= len(_members(definitions, "oov")["high"]) <= 50


def test_equal_lengths_are_in_one_quartile() -> None:
    texts = ["a b"] * 8
    definitions = define_slices(_table(texts), _tokens(texts, texts))
    assert _members(definitions, "length") == {"quartile_1": list(range(8))}


def test_out_of_vocabulary_rates_are_cut_at_the_upper_quartile() -> None:
    texts = ["a a a a", "a a a x", "a a x x", "a x x x", "x x x x", "a a a a"]
    definitions = define_slices(_table(texts), _tokens(texts, ["a"]))
    assert _members(definitions, "oov") == {"none": [0, 5], "some": [1, 2], "high": [3, 4]}


def test_negation_words_are_whole_words() -> None:
    texts = [
        "I do NOT like it",
        "it isn't good",
        "it isn\u2019t good",
        "nobody laughed",
        "Notable knots",
        "now",
    ]
    definitions = define_slices(_table(texts), _tokens(texts, texts))
    assert _members(definitions, "negation") == {"with": [0, 1, 2, 3], "without": [4, 5]}


def test_films_are_compared_with_the_training_split_where_groups_are_known() -> None:
    texts, groups = ["a", "b", "c"], ["tt1", None, "tt2"]
    tokens = _tokens(texts, texts)
    known = define_slices(_table(texts, groups), tokens, training_groups={"tt1"})
    assert _members(known, "film") == {"in_training": [0], "new": [2]}
    for unknown in (
        define_slices(_table(texts, groups), tokens, training_groups=None),
        define_slices(_table(texts), tokens, training_groups={"tt1"}),
    ):
        assert _members(unknown, "film") == {}


def test_empty_texts_and_an_empty_split_have_slices() -> None:
    tokens = _tokens(["", " "], ["a"])
    definitions = define_slices(_table(["", " "]), tokens)
    assert _members(definitions, "oov") == {"none": [0, 1]}
    assert define_slices(_table([]), _tokens([], ["a"])) == []


def test_reviews_of_another_split_are_an_error() -> None:
    with pytest.raises(ValueError, match="2 reviews, but 1 tokenized"):
        define_slices(_table(["a", "b"]), _tokens(["a"], ["a"]))


LABELS = np.random.default_rng(1).integers(0, 2, 400).astype(np.int8)
SCORES = LABELS + np.random.default_rng(2).normal(size=400)


@pytest.fixture
def rng() -> np.random.Generator:
    """Return a generator of each test's own: draws must not depend on which tests a worker ran before."""
    return np.random.default_rng(3)


def _measure(
    members: NDArray[np.bool_], labels: NDArray[np.int8], scores: NDArray[np.float64]
) -> SliceResult:
    (measured,) = measure_slices([SliceDefinition("a", "", members)], labels, scores)
    return measured


def test_auc_and_interval_are_those_of_the_slice_alone() -> None:
    members = np.arange(400) < 150
    measured = _measure(members, LABELS, SCORES)
    assert measured.reviews == 150
    assert measured.positive_fraction == LABELS[:150].mean()
    assert measured.auc == pytest.approx(roc_auc_score(LABELS[:150], SCORES[:150]), abs=1e-12)
    assert measured.interval == compute_delong_interval(LABELS[:150], SCORES[:150], 0.95)
    whole = roc_auc_score(LABELS, SCORES)
    assert measured.difference == pytest.approx(measured.auc - whole, abs=1e-12)


def test_interval_of_the_difference_is_that_of_a_bootstrap_of_the_split(rng: np.random.Generator) -> None:
    """Half of the split: two independent intervals would be too wide by a third."""
    members = np.arange(400) % 2 == 0
    interval = _measure(members, LABELS, SCORES).difference_interval
    differences = []
    for _ in range(600):
        rows = rng.integers(0, 400, 400)
        inside = rows[members[rows]]
        aucs = [roc_auc_score(LABELS[drawn], SCORES[drawn]) for drawn in (inside, rows)]
        differences.append(aucs[0] - aucs[1])
    assert interval is not None
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * np.std(differences), rel=0.1)


def test_whole_split_as_a_slice_has_no_difference() -> None:
    measured = _measure(np.ones(400, dtype=bool), LABELS, SCORES)
    assert measured.difference_interval is not None
    assert measured.difference_interval.high == pytest.approx(0, abs=1e-12)
    assert not measured.below


def test_random_slices_are_rarely_below_and_a_noisy_one_is(rng: np.random.Generator) -> None:
    below = 0
    for _ in range(1000):
        below += _measure(rng.random(400) < 0.3, LABELS, SCORES).below
    assert below <= 1000 * (0.025 + 2 * np.sqrt(0.025 * 0.975 / 1000))
    members = np.arange(400) < 150
    noisy = np.where(members, rng.normal(size=400), SCORES)
    assert _measure(members, LABELS, noisy).below
    assert not _measure(~members, LABELS, noisy).below


def test_slice_of_one_class_is_listed_without_auc() -> None:
    one_class = _measure(LABELS == 1, LABELS, SCORES)
    nearly = _measure((LABELS == 1) | (np.arange(400) == np.flatnonzero(LABELS == 0)[0]), LABELS, SCORES)
    for measured in (one_class, nearly):
        assert (measured.auc, measured.interval, measured.below) == (None, None, False)
        assert measured.to_dict().keys() == {"reviews", "positive_fraction", "below"}
    assert one_class.positive_fraction == 1


def test_slice_of_few_reviews_is_never_below() -> None:
    members = np.zeros(400, dtype=bool)
    for label in (0, 1):
        members[np.flatnonzero(label == LABELS)[:9]] = True
    wrong = np.where(members, 100.0 * (1 - LABELS), SCORES)
    measured = _measure(members, LABELS, wrong)
    assert measured.auc == 0
    assert not measured.below


def test_table_has_every_slice_and_metrics_are_json() -> None:
    definitions = [
        SliceDefinition("length_quartile_1", "1 to 9 tokens", np.arange(400) < 100),
        SliceDefinition("source_x", "from the source x", LABELS == 1),
    ]
    slices = measure_slices(definitions, LABELS, SCORES)
    table = tabulate_slices(slices)
    assert table["name"].tolist() == ["length_quartile_1", "source_x"]
    assert table["auc"].isna().tolist() == [False, True]
    assert slices[0].to_dict()["auc"] == round(float(table["auc"][0]), 6)
    json.dumps([part.to_dict() for part in slices], allow_nan=False)


def test_groups_widen_the_intervals() -> None:
    """Four copies of each review are as many reviews as one copy, if they are a group."""
    members = np.arange(400) < 150
    repeated = [np.repeat(values, 4) for values in (members, LABELS, SCORES)]
    definition = SliceDefinition("a", "", repeated[0])
    (grouped,) = measure_slices([definition], *repeated[1:], groups=np.repeat(np.arange(400), 4))
    single = _measure(members, LABELS, SCORES)
    for name in ("interval", "difference_interval"):
        assert getattr(grouped, name).low == pytest.approx(getattr(single, name).low, abs=1e-3)
        assert getattr(grouped, name).high == pytest.approx(getattr(single, name).high, abs=1e-3)


def test_slice_of_one_group_has_no_auc() -> None:
    groups = np.where(np.arange(400) < 150, 0, np.arange(400))
    definition = SliceDefinition("a", "", np.arange(400) < 150)
    (measured,) = measure_slices([definition], LABELS, SCORES, groups=groups)
    assert (measured.reviews, measured.auc) == (150, None)


def test_scores_that_are_not_finite_are_an_error() -> None:
    with pytest.raises(UserError, match="not finite"):
        measure_slices([], LABELS, np.where(np.arange(400) == 7, np.nan, SCORES))


def test_slices_of_a_split_are_computed_in_one_call(reviews: pa.Table, rng: np.random.Generator) -> None:
    table = _table(reviews["text"].to_pylist(), [str(row // 2) for row in range(200)])
    tokens = encode(train_small_tokenizer(table["text"].to_pylist(), 1000), table)
    slices = compute_slices(table, tokens, rng.normal(size=200), training_groups={"0"})
    by_name = {part.name: part for part in slices}
    assert by_name["source_a"].reviews == 200
    assert (by_name["film_in_training"].reviews, by_name["film_in_training"].auc) == (2, None)

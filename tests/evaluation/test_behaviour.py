"""Behavioural tests: models with one known weakness fail exactly the tests that look for it."""

import json
import re
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from scipy.special import expit

from sentiment.data.imdb import load_package_reviews
from sentiment.evaluation import perturbations
from sentiment.evaluation.behaviour import (
    SAMPLED_REVIEWS,
    BehaviourResult,
    build_cases,
    find_violated_limits,
    load_written_texts,
    run_behaviour_tests,
)
from sentiment.evaluation.reference import fit_reference
from sentiment.intervals import Interval

Predict = Callable[[Sequence[str]], NDArray[np.float64]]


@pytest.fixture(scope="module")
def predict() -> Predict:
    """A linear model of 2,500 real reviews, which ignores case and punctuation."""
    table = load_package_reviews().take(pa.array(range(0, 25_000, 10)))
    reference = fit_reference(table["text"].to_pylist(), table["label"].to_numpy())
    return lambda texts: expit(reference.predict_logits(texts))


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Real reviews that the model has not learned from."""
    taken: list[str] = load_package_reviews().take(pa.array(range(5, 25_000, 50)))["text"].to_pylist()
    return taken


@pytest.fixture(scope="module")
def results(predict: Predict, texts: list[str]) -> dict[str, BehaviourResult]:
    """Results of the linear model."""
    return _run(predict, texts)


def _run(predict: Predict, texts: Sequence[str]) -> dict[str, BehaviourResult]:
    return {result.name: result for result in run_behaviour_tests(predict, texts)}


def test_a_linear_model_passes_all_but_negation(results: dict[str, BehaviourResult]) -> None:
    assert list(results) == [
        "minimum_functionality",
        "negation",
        "names",
        "case",
        "html",
        "typos",
        "unusual_inputs",
    ]
    assert results["minimum_functionality"].pass_rate > 0.9
    assert results["negation"].pass_rate < 0.8
    assert results["case"].pass_rate == 1
    for name in ("names", "html", "typos", "unusual_inputs"):
        assert results[name].pass_rate > 0.8, name


def test_two_runs_are_equal_and_predict_each_text_once(
    predict: Predict, texts: list[str], results: dict[str, BehaviourResult]
) -> None:
    calls: list[list[str]] = []

    def record(batch: Sequence[str]) -> NDArray[np.float64]:
        calls.append(list(batch))
        return predict(batch)

    assert _run(record, texts) == results
    (call,) = calls
    assert len(call) == len(set(call))


def test_invariance_is_tested_on_reviews_of_the_split(texts: list[str]) -> None:
    changed = {case.original for case in build_cases(texts) if case.test == "case"}
    assert len(changed & set(texts)) == SAMPLED_REVIEWS
    named = [case for case in build_cases(texts) if case.test == "names" and case.original in texts]
    assert len(named) > 20
    assert all(case.text != case.original for case in named)


@pytest.mark.parametrize(
    ("weakness", "pattern"),
    [
        ("case", "[A-Z]{10}|^[^A-Z]{60}"),
        ("html", r"<br />|<i>|&quot;|&amp;"),
        ("names", "Michael Caine"),
        ("unusual_inputs", r"^\.$"),
    ],
)
def test_a_weakness_fails_its_own_test(
    predict: Predict,
    texts: list[str],
    results: dict[str, BehaviourResult],
    weakness: str,
    pattern: str,
) -> None:
    def weak(batch: Sequence[str]) -> NDArray[np.float64]:
        found = np.array([re.search(pattern, text) is not None for text in batch])
        return np.where(found, 1.0, predict(batch))

    after = _run(weak, texts)
    assert after[weakness].passed < results[weakness].passed
    assert after["minimum_functionality"] == results["minimum_functionality"]
    failure = after[weakness].failures[0]
    assert re.search(pattern, failure.text)
    assert failure.probability == 1
    assert "found 1.000" in str(failure)


def test_a_model_without_an_opinion_fails() -> None:
    results = _run(lambda batch: np.full(len(batch), 0.5), [])
    assert results["minimum_functionality"].pass_rate == 0.5
    assert results["negation"].pass_rate == 0
    assert results["case"].pass_rate == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.1, 1.5])
def test_what_is_no_probability_passes_no_test(value: float, texts: list[str]) -> None:
    results = _run(lambda batch: np.full(len(batch), value), texts)
    assert [result.passed for result in results.values()] == [0] * 7
    assert all(result.failures for result in results.values())


def test_failures_are_those_farthest_from_what_was_expected() -> None:
    wrong = load_written_texts().minimum_functionality.negative[7]
    results = _run(lambda batch: np.array([0.9 if text == wrong else 0.6 for text in batch]), [])
    assert results["minimum_functionality"].failures[0].text == wrong
    assert results["minimum_functionality"].cases == 48
    assert results["minimum_functionality"].passed == 24
    assert len(results["minimum_functionality"].failures) == 3


def test_a_negation_of_a_wrong_prediction_fails_with_a_reason() -> None:
    failure = _run(lambda batch: np.zeros(len(batch)), [])["negation"].failures[0]
    assert "a text without the negation that has the probability of its label" in str(failure)


def test_metrics_are_json(predict: Predict) -> None:
    for result in run_behaviour_tests(predict, ["One review."]):
        content = json.loads(json.dumps(result.to_dict(), allow_nan=False))
        assert content["interval"]["low"] <= content["pass_rate"] <= content["interval"]["high"]


def test_limits_name_the_tests_below_them() -> None:
    results = [BehaviourResult("names", 10, 8, Interval(0.5, 0.9), ()), _passed("case"), _passed("html")]
    limits = {"names": 0.9, "case": 1.0}
    assert find_violated_limits(results, limits) == [
        "behavioural test names: 8 of 10 cases passed (80.0%), the limit is 90.0%"
    ]
    assert find_violated_limits(results, {"names": 0.8}) == []


def _passed(name: str) -> BehaviourResult:
    return BehaviourResult(name, 5, 5, Interval(0.5, 1.0), ())  # type: ignore[arg-type]


def test_perturbations_change_the_form_only() -> None:
    text = 'A "good" film. Really? Yes & no.'
    assert perturbations.add_line_breaks(text) == 'A "good" film.<br /><br />Really?<br /><br />Yes & no.'
    assert perturbations.add_tags("a " * 20 + "b").endswith("a <i>b</i></p>")
    assert perturbations.escape_entities(text) == "A &quot;good&quot; film. Really? Yes &amp; no."


def test_typos_swap_letters_of_some_long_words() -> None:
    text = "wonderful photography of old ships " * 500
    changed = perturbations.add_typos(text, np.random.default_rng(0))
    pairs = [(old, new) for old, new in zip(text.split(), changed.split(), strict=True) if old != new]
    assert 40 <= len(pairs) <= 110  # 5% of 1,500 words, less those whose swapped letters are equal
    for old, new in pairs:
        assert len(old) >= 4
        assert old[0] == new[0]
        assert sorted(old) == sorted(new)


def test_names_are_swapped_consistently() -> None:
    names = ["Tom Hanks", "Kevin Kline", "Cary Grant"]
    text = "Tom Hanks and Kevin Kline. Tom Hankson? Yes, Tom Hanks!"
    swapped = perturbations.swap_names(text, names, np.random.default_rng(1))
    first = re.match(r"(\w+ \w+) and", swapped)
    assert first is not None
    assert first[1] in ("Kevin Kline", "Cary Grant")
    assert swapped.endswith(f"Tom Hankson? Yes, {first[1]}!")
    assert perturbations.swap_names("no name", names, np.random.default_rng(1)) == "no name"

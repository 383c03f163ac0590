"""Behavioural tests of a model (CheckList: Ribeiro et al., 2020).

A case is a text with a known answer, or a text that was changed in a known way, and the range in which the
predicted probability must be. The written texts are in `behaviour.yaml`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from ruamel.yaml import YAML

from sentiment.evaluation import perturbations
from sentiment.evaluation.error_analysis import shorten
from sentiment.intervals import DECIMALS, Interval, compute_wilson_interval
from sentiment.params.evaluate import BehaviourTest
from sentiment.params.section import Section

TOLERANCE = 0.1
"""Change of the probability that a test of invariance allows, and that a negation must at least cause."""

UNINFORMATIVE = Interval(0.1, 0.9)
"""Range of probabilities that a text without an opinion may have."""

SAMPLED_REVIEWS = 100
"""Number of reviews that each test of invariance changes."""

SEED = 42
"""Seed of the sample of reviews, the typing errors and the names; the tests are the same for every model."""

LISTED_FAILURES = 3
"""Number of failed cases that a result lists, those farthest from what was expected."""


class Sentences(Section):
    """Written texts by label."""

    positive: list[str]
    negative: list[str]


class NegationPairs(Section):
    """Pairs of a text and its negation, by the label of the text before it is negated."""

    positive: list[list[str]]
    negative: list[list[str]]


class Names(Section):
    """Names, and templates with the placeholders {man}, {woman} and {film}."""

    templates: list[str]
    men: list[str]
    women: list[str]
    films: list[str]


class RepeatedText(Section):
    """A text that is repeated to a very long one."""

    text: str
    times: int


class UnusualInputs(Section):
    """Texts that are no reviews."""

    any: list[str]
    repeated: list[RepeatedText]
    uninformative: list[str]


class WrittenTexts(Section):
    """Content of `behaviour.yaml`."""

    minimum_functionality: Sentences
    negation: NegationPairs
    names: Names
    reviews: list[str]
    unusual_inputs: UnusualInputs


@dataclass(frozen=True)
class Case:
    """A text with the range in which its predicted probability must be.

    Attributes:
        test: name of the group of tests.
        text: text to predict.
        low: lowest probability that passes.
        high: highest probability that passes.
        original: text before it was changed; if there is one, `low` and `high` are relative to its
            probability.
    """

    test: BehaviourTest
    text: str
    low: float
    high: float
    original: str | None = None


@dataclass(frozen=True)
class Failure:
    """A failed case: the predicted probability and the range in which it should be."""

    text: str
    original: str | None
    probability: float
    low: float
    high: float

    def __str__(self) -> str:
        expected = f"{self.low:.3f} to {self.high:.3f}"
        if (
            self.low > self.high
        ):  # the text without the negation already has the probability of the other label
            expected = "a text without the negation that has the probability of its label"
        return f"{shorten(self.text)!r}: expected {expected}, found {self.probability:.3f}"


@dataclass(frozen=True)
class BehaviourResult:
    """Result of a group of behavioural tests.

    Attributes:
        name: name of the group.
        cases: number of cases.
        passed: number of passed cases.
        interval: Wilson's confidence interval of the pass rate.
        failures: a few failed cases, those farthest from the expected range first.
    """

    name: BehaviourTest
    cases: int
    passed: int
    interval: Interval
    failures: tuple[Failure, ...]

    @property
    def pass_rate(self) -> float:
        """Fraction of passed cases; 1 if there are none."""
        return self.passed / self.cases if self.cases else 1.0

    def to_dict(self) -> dict[str, Any]:
        """Return the rounded result as it is written to a metrics file."""
        return {
            "cases": self.cases,
            "passed": self.passed,
            "pass_rate": round(self.pass_rate, DECIMALS),
            "interval": self.interval.to_dict(),
        }


def run_behaviour_tests(
    predict: Callable[[Sequence[str]], NDArray[np.float64]],
    reviews: Sequence[str],
    confidence_level: float = 0.95,
) -> list[BehaviourResult]:
    """Run all behavioural tests. All texts are predicted in one call.

    Args:
        predict: returns the probability that each text is positive, shape (texts,).
        reviews: reviews of which a sample is changed; they need no labels.
        confidence_level: confidence level of the intervals, between 0 and 1.

    Returns:
        One result per group of tests, in the order of `BehaviourTest`.
    """
    cases = list(build_cases(reviews))
    texts = list(
        dict.fromkeys(text for case in cases for text in (case.original, case.text) if text is not None)
    )
    by_text = dict(zip(texts, predict(texts).tolist(), strict=True))
    return [
        _summarize(name, [case for case in cases if case.test == name], by_text, confidence_level)
        for name in get_args(BehaviourTest)
    ]


def _summarize(
    name: BehaviourTest, cases: Sequence[Case], by_text: Mapping[str, float], confidence_level: float
) -> BehaviourResult:
    failures = []
    for case in cases:
        base = 0.0 if case.original is None else by_text[case.original]
        low, high, probability = base + case.low, base + case.high, by_text[case.text]
        if not (low <= probability <= high and 0 <= probability <= 1):  # also if one of them is NaN
            failures.append(Failure(case.text, case.original, probability, max(0.0, low), min(1.0, high)))
    passed = len(cases) - len(failures)
    interval = compute_wilson_interval(passed, len(cases), confidence_level)
    failures.sort(key=_compute_distance, reverse=True)
    return BehaviourResult(name, len(cases), passed, interval, tuple(failures[:LISTED_FAILURES]))


def _compute_distance(failure: Failure) -> float:
    """Return the distance of a probability from the expected range; NaN is farthest."""
    distance = max(failure.low - failure.probability, failure.probability - failure.high)
    return distance if np.isfinite(distance) else np.inf


def find_violated_limits(
    results: Sequence[BehaviourResult], limits: Mapping[BehaviourTest, float]
) -> list[str]:
    """Return one sentence for each group of tests whose pass rate is below its limit."""
    return [
        f"behavioural test {result.name}: {result.passed} of {result.cases} cases passed "
        f"({result.pass_rate:.1%}), the limit is {limits[result.name]:.1%}"
        for result in results
        if result.name in limits and result.pass_rate < limits[result.name]
    ]


def load_written_texts() -> WrittenTexts:
    """Load the texts in `behaviour.yaml`."""
    content = (files("sentiment.evaluation") / "behaviour.yaml").read_text(encoding="utf-8")
    return WrittenTexts.model_validate(YAML(typ="safe", pure=True).load(content))


def build_cases(reviews: Sequence[str]) -> Iterator[Case]:
    """Yield the cases of all tests; see `run_behaviour_tests`."""
    written = load_written_texts()
    for label, low, high in (("positive", 0.5, 1.0), ("negative", 0.0, float(np.nextafter(0.5, 0)))):
        for text in getattr(written.minimum_functionality, label):
            yield Case("minimum_functionality", text, low, high)
    for label, low, high in (("positive", -1.0, -TOLERANCE), ("negative", TOLERANCE, 1.0)):
        for text, negated in getattr(written.negation, label):
            yield Case("negation", negated, low, high, original=text)
    rng = np.random.default_rng(SEED)
    yield from _build_name_cases(written.names, reviews, rng)
    sample = [*written.reviews, *_draw(reviews, rng)]
    changes: Sequence[tuple[BehaviourTest, Callable[[str], str]]] = (
        ("case", str.upper),
        ("case", str.lower),
        ("html", perturbations.add_line_breaks),
        ("html", perturbations.add_tags),
        ("html", perturbations.escape_entities),
        ("typos", partial(perturbations.add_typos, rng=rng)),
    )
    for test, change in changes:
        for text in sample:
            yield from _build_invariance_case(test, change(text), text)
    unusual = written.unusual_inputs
    for text in (*unusual.any, *(" ".join([long.text] * long.times) for long in unusual.repeated)):
        yield Case("unusual_inputs", text, 0.0, 1.0)
    for text in unusual.uninformative:
        yield Case("unusual_inputs", text, UNINFORMATIVE.low, UNINFORMATIVE.high)


def _build_name_cases(names: Names, reviews: Sequence[str], rng: np.random.Generator) -> Iterator[Case]:
    """Yield the templates with each name in turn, and the reviews that contain names with other names."""
    for template in names.templates:
        persons_and_films = zip(names.men, names.women, names.films, strict=True)
        first, *others = [
            template.format(man=man, woman=woman, film=film) for man, woman, film in persons_and_films
        ]
        for text in others:
            yield from _build_invariance_case("names", text, first)

    def swap(text: str) -> str:
        for group in (names.men, names.women, names.films):
            text = perturbations.swap_names(text, group, rng)
        return text

    for text in _draw([text for text in reviews if swap(text) != text], rng):
        yield from _build_invariance_case("names", swap(text), text)


def _build_invariance_case(test: BehaviourTest, text: str, original: str) -> Iterator[Case]:
    """Yield a case whose probability must be near that of the original, if the text differs from it."""
    if text != original:
        yield Case(test, text, -TOLERANCE, TOLERANCE, original)


def _draw(reviews: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Draw at most `SAMPLED_REVIEWS` reviews, in their order."""
    rows = rng.choice(len(reviews), min(SAMPLED_REVIEWS, len(reviews)), replace=False)
    return [reviews[row] for row in sorted(rows.tolist())]

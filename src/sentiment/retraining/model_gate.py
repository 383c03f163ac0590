"""The model gate: whether a new model may replace the champion, by its scores on the test split.

It asks the test split one question per new model. `retrain.looks` is the number of models that one test split
may decide on. Each is decided on at a level of 0.025 divided by that number, so that a year without any true
gain promotes a model as `better` with a probability of at most 0.025 (Bonferroni; a budget of looks as in
ease.ml/ci, Renggli et al. 2019). New training data changes an AUC by 0.001 or less, which is never `better`
at this level. So a model with new data must be `no worse`, both than the champion and than the anchor, the
last model that was promoted for being better: otherwise, small losses would add up from week to week (Feng,
Emerson and Simon 2021).
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from sentiment import paths
from sentiment.comparison import score_unseen_reviews
from sentiment.errors import UserError
from sentiment.evaluation.verdict import compare_scores, count_rows_needed
from sentiment.files import compute_file_md5
from sentiment.intervals import estimate_auc_difference
from sentiment.ledger import Outcome
from sentiment.params import Params
from sentiment.registry.git_tags import CHAMPION
from sentiment.registry.revision import read_outputs
from sentiment.registry.state import FIRST_CHAMPION, ROLLBACK, Assignment, Registry
from sentiment.retraining.gate_result import GateComparison, GateResult, Role
from sentiment.retraining.report_plots import compute_roc
from sentiment.retraining.slice_differences import compare_slices, find_worse_slices

LEVEL = 0.025
"""Probability that one test split, in all of its looks, finds an equal model `better`; one-sided."""

POWER_QUANTILE = 0.84
"""Normal quantile of a power of 80%: with a margin of (z + 0.84) standard errors, an equal model is
`no worse` in 80% of decisions."""


def decide_on_model(
    challenger: str | Path,
    champion: Assignment | None,
    anchor: Assignment | None,
    *,
    data_changed: bool,
    looks: int,
    params: Params,
) -> GateResult:
    """Decide whether a new model may replace the champion.

    What needs no look at the test split comes first: limits, the linear reference, the look budget. The first
    champion has no model to be compared with, so that these alone decide on it.

    Args:
        challenger: the selected model of the working tree, which `metrics/evaluate.json` describes.
        champion: the champion; None if there is none.
        anchor: the model from `find_anchor`.
        data_changed: whether the challenger learned from other reviews than the champion.
        looks: number of models that this test split has decided on so far.
        params: all parameters of params.yaml.

    Raises:
        UserError: a model cannot be read or compared, or `metrics/evaluate.json` or the test split is not
            the one in `dvc.lock`.
    """
    metrics = _read_metrics()
    reference = metrics["comparisons"][f"{metrics['selected']}_over_reference"]["holdout"]
    result = GateResult(
        outcome="not_better",
        reason="",
        verdict=None,
        level=LEVEL / params.retrain.looks,
        looks=looks,
        is_look=False,
        reference=reference,
        behaviour={name: test["pass_rate"] for name, test in metrics["behaviour"].items()},
        comparisons={},
        violations=list(metrics["violated_limits"]),
    )
    if result.violations:
        return replace(result, reason=f"it violates limits: {', '.join(result.violations)}")
    if params.retrain.beat_linear and reference["verdict"] != "better":
        return _decide_by_linear_model(result)
    if champion is None:
        passed = "better than the linear reference and " if reference["verdict"] == "better" else ""
        reason = f"{FIRST_CHAMPION}: {passed}within all limits"
        return replace(result, outcome="promote", verdict=FIRST_CHAMPION, reason=reason)
    if looks >= params.retrain.looks:
        return replace(
            result,
            outcome="cannot_tell",
            reason=f"the test split is used up: it has decided on {looks} models, of at most "
            f"{params.retrain.looks} (retrain.looks); a new one is described in docs/operations.md",
        )
    return _compare_on_test(result, challenger, champion, anchor, data_changed=data_changed, params=params)


def compare_at_level(
    labels: NDArray[np.integer],
    scores: NDArray[np.floating],
    reference: NDArray[np.floating],
    groups: NDArray[np.integer] | None = None,
    *,
    name: str,
    level: float,
    margin: float,
    max_margin: float,
) -> GateComparison:
    """Compare a challenger with an earlier model on the same reviews.

    Args:
        labels: 0 or 1, shape (reviews,).
        scores: logits of the challenger, shape (reviews,).
        reference: logits of the earlier model, shape (reviews,).
        groups: group of each review, shape (reviews,); None if all are independent.
        name: version of the earlier model.
        level: one-sided level.
        margin: smallest margin, see `choose_margin`.
        max_margin: largest margin.
    """
    confidence_level = 1 - 2 * level
    estimate = estimate_auc_difference(labels, scores, reference, groups)
    used = choose_margin(estimate.standard_error, level, margin, max_margin)
    comparison = compare_scores(
        labels, scores, reference, groups=groups, confidence_level=confidence_level, margin=used
    )
    if comparison.rows_needed is not None:
        half_width = estimate.compute_half_width(confidence_level)
        needed = count_rows_needed(estimate.value, half_width, margin, len(labels))
        comparison = replace(comparison, rows_needed=max(comparison.rows_needed, needed))
    return GateComparison(name, comparison, used)


def choose_margin(standard_error: float, level: float, smallest: float, largest: float) -> float:
    """Return the margin of a comparison: (z + 0.84) standard errors, within limits.

    With a smaller one, most models that are equal could not be distinguished from worse ones.

    Args:
        standard_error: standard error of the difference in AUC.
        level: one-sided level, whose normal quantile is z.
        smallest: smallest margin, `evaluate.margin`.
        largest: largest margin, `retrain.max_margin`, unless `smallest` is above it.
    """
    visible = (float(norm.ppf(1 - level)) + POWER_QUANTILE) * standard_error
    return max(smallest, min(visible, largest))


def decide(comparisons: Mapping[Role, GateComparison], *, data_changed: bool) -> tuple[Outcome, str, str]:
    """Decide from the comparisons of a challenger.

    With the same training data, the challenger must be `better` than the champion, otherwise `no worse`; in
    both cases, it must be `no worse` than the anchor.

    Args:
        comparisons: comparisons with the champion and, if it is another model, the anchor.
        data_changed: whether the challenger learned from other reviews than the champion.

    Returns:
        The outcome; the weakest verdict, `better` only if the challenger is better than both; the reason.
    """
    champion, others = comparisons["champion"], list(comparisons.values())
    verdict = next(
        name
        for name in ("worse", "cannot tell", "no worse", "better")
        if any(other.comparison.verdict == name for other in others)
    )
    needed = "no worse than the champion is needed, since the training data changed"
    if not data_changed:
        needed = "better than the champion is needed, since the training data is the same"
    explanation = "; ".join(map(str, others)) + f" on {champion.comparison.rows:,} test reviews"
    if verdict == "worse" or (not data_changed and champion.comparison.verdict == "no worse"):
        return "not_better", verdict, f"{explanation}; {needed}"
    if verdict == "cannot tell":
        return "cannot_tell", verdict, f"{explanation}; {needed}"
    return "promote", verdict, explanation


def find_anchor(registry: Registry) -> Assignment | None:
    """Return the anchor, behind which new models must not fall.

    It is the last champion that was promoted with the verdict `better`, as the first champion, or by a person
    (`--force`, `gto assign`), who accepts a loss. Champions that are only `no worse` are passed over. Without
    a champion, there is none.
    """
    assignments = [tag for tag in registry.tags if tag.stage == CHAMPION and not tag.is_cancellation]
    for champion in reversed(registry.champions):
        details: Mapping[str, str] = {}  # of the promotion, which a rollback to this version does not repeat
        for tag in assignments:
            if tag.commit == champion.tag.commit and tag.details.get("Action") != ROLLBACK:
                details = tag.details
        if "Forced" in details or details.get("Verdict", "better") in ("better", FIRST_CHAMPION):
            return champion
    return registry.champions[0] if registry.champions else None


def _compare_on_test(
    result: GateResult,
    challenger: str | Path,
    champion: Assignment,
    anchor: Assignment | None,
    *,
    data_changed: bool,
    params: Params,
) -> GateResult:
    """Return the decision after a look at the test split."""
    _require_locked(paths.reviews("test"))
    models: dict[Role, Assignment] = {"champion": champion}
    if anchor is not None and anchor.tag.commit != champion.tag.commit:
        models["anchor"] = anchor
    names = {role: assignment.tag.commit for role, assignment in models.items()}
    scored = score_unseen_reviews([str(challenger), *names.values()], "test")
    comparisons = {
        role: compare_at_level(
            scored.labels,
            scored.logits[str(challenger)],
            scored.logits[names[role]],
            scored.groups,
            name=assignment.registration.name,
            level=result.level,
            margin=params.evaluate.margin,
            max_margin=params.retrain.max_margin,
        )
        for role, assignment in models.items()
    }
    slices = compare_slices(scored, str(challenger), names["champion"])
    violations = find_worse_slices(slices, params.evaluate.margin)
    outcome, verdict, reason = decide(comparisons, data_changed=data_changed)
    rows_missing = _count_missing_rows(comparisons) if outcome == "cannot_tell" else None
    if rows_missing is not None:
        reason = f"{reason}; about {rows_missing:,} more test reviews would decide"
    if outcome == "promote" and violations:
        outcome, reason = "not_better", f"worse on a slice of the test split: {'; '.join(violations)}"
    return replace(
        result,
        outcome=outcome,
        reason=reason,
        verdict=verdict,
        looks=result.looks + 1,
        is_look=True,
        comparisons=comparisons,
        slices=slices,
        violations=violations,
        left_out=scored.left_out,
        rows_missing=rows_missing,
        roc={
            "champion": compute_roc(scored.labels, scored.logits[names["champion"]]),
            "challenger": compute_roc(scored.labels, scored.logits[str(challenger)]),
        },
    )


def _decide_by_linear_model(result: GateResult) -> GateResult:
    """Return the decision on a model that is not better than the linear reference."""
    low, high = result.reference["interval"]["low"], result.reference["interval"]["high"]
    reason = (
        f"not better than the linear reference on the holdout split: {result.reference['verdict']}, "
        f"AUC {result.reference['difference']:+.4f} ({low:+.4f} to {high:+.4f})"
    )
    if result.reference["verdict"] != "cannot tell":
        return replace(result, reason=reason)
    rows_missing = result.reference["rows_needed"]
    if rows_missing is not None:
        reason = f"{reason}; about {rows_missing:,} more holdout reviews would decide"
    return replace(result, outcome="cannot_tell", reason=reason, rows_missing=rows_missing)


def _count_missing_rows(comparisons: Mapping[Role, GateComparison]) -> int | None:
    needed = [other.comparison.rows_needed for other in comparisons.values()]
    return max((rows for rows in needed if rows is not None), default=None)


def _read_metrics() -> dict[str, Any]:
    path = paths.metrics("evaluate")
    _require_locked(path)
    return dict(json.loads(path.read_bytes()))


def _require_locked(path: Path) -> None:
    """Raise UserError unless a file is the one that `dvc.lock` records."""
    md5 = read_outputs([path])[path]
    if not path.is_file() or compute_file_md5(path) != md5:
        raise UserError(
            f"{path} is missing or not the one in {paths.LOCK}: `dvc repro` writes it, `dvc pull` gets it "
            "from a remote"
        )

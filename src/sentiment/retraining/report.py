"""`reports/retrain.md`: the outcome and its reason first, then what changed; details are folded."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sentiment import paths
from sentiment.errors import TrainingDivergedError, UserError
from sentiment.ledger import Outcome
from sentiment.repository import run_git
from sentiment.retraining.report_plots import render_history, render_roc
from sentiment.retraining.result import RetrainingResult

TITLES: dict[Outcome, str] = {
    "promote": "promote the new model",
    "nothing_new": "nothing new",
    "not_better": "not better than the champion",
    "cannot_tell": "cannot tell",
    "data_stopped": "stopped by the data gate",
}

METRICS = {
    "auc": "AUC",
    "average_precision": "average precision",
    "accuracy": "accuracy",
    "f1": "F1",
    "log_loss": "log loss",
    "expected_calibration_error": "calibration error",
}
"""Metrics on the test split that the report compares, and their names there."""

INPUTS = (
    *(path.as_posix() for path in (paths.PARAMS, paths.PIPELINE, paths.ENVIRONMENT)),
    *(paths.INCOMING.as_posix(), paths.REMOVED.as_posix(), "src", "stages"),
)
"""Files in git that determine the result."""

MAX_LINES = 10
"""Changes of a kind that are shown; the rest is counted."""


def render_report(result: RetrainingResult) -> str:
    """Render the report as Markdown: one screen, with details folded below."""
    parts = [
        f"# Retraining: {TITLES[result.outcome]}\n\n{_state_reason(result)}",
        _render_metrics(result),
        _render_comparisons(result),
        _render_changes(result),
        *_render_data_gate(result),
        _render_details(result),
        _render_plots(result),
        _render_instructions(result),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def explain_failure(error: BaseException) -> str:
    """Return why a retraining has no outcome; the first line is a sentence."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted by Ctrl-C or SIGTERM; the next `sentiment retrain` resumes"
    message, name = str(error), type(error).__name__
    if isinstance(error, UserError) and message:
        return message
    return f"{name}: {message}" if message else name


def render_failure(error: BaseException) -> str:
    """Render a retraining without an outcome: the cause, and the other lines of its message, folded."""
    title = "training diverged" if isinstance(error, TrainingDivergedError) else "failed"
    first, *others = explain_failure(error).splitlines()
    parts = [f"# Retraining: {title}\n\n{_to_sentence(first)}"]
    if others:
        parts.append(_fold("The whole message", "\n".join(["```", *others, "```"])))
    return "\n\n".join(parts) + "\n"


def _to_sentence(text: str) -> str:
    """Return a message as a sentence, in which a value from a file is neither HTML nor notifies a user."""
    text = re.sub(r"(?<!\w)@", "@\u200b", text).replace("<", "&lt;")
    if not {"/", "."} & set(text.partition(" ")[0].rstrip(":.")):  # neither a path nor a parameter
        text = text[:1].upper() + text[1:]
    return text.rstrip(".:") + "."


def _state_reason(result: RetrainingResult) -> str:
    reason = _to_sentence(result.reason)
    if result.is_repeated and result.entry:
        reason += f" This was decided on {result.entry.created}, and is not decided again."
    return reason


def _render_metrics(result: RetrainingResult) -> str:
    """Render a table of test metrics of champion and challenger, each with its interval."""
    if result.champion is None or result.entry is None or result.entry.challenger is None:
        return ""
    former = _read_test_metrics(result.champion.tag.commit)
    current = _read_test_metrics(None)
    rows = [
        f"| {title} | {_format_metric(former, name)} | {_format_metric(current, name)} |"
        for name, title in METRICS.items()
    ]
    champion = result.champion.registration.name
    return "\n".join([f"| test | champion {champion} | challenger |", "| --- | --- | --- |", *rows])


def _read_test_metrics(commit: str | None) -> Mapping[str, Any]:
    path = paths.metrics("evaluate")
    content = path.read_bytes() if commit is None else run_git("show", f"{commit}:./{path}")
    try:
        return dict(json.loads(content or b"{}").get("test", {}))
    except ValueError:
        return {}


def _format_metric(metrics: Mapping[str, Any], name: str) -> str:
    if name not in metrics:
        return "not known"
    interval = metrics.get("interval", {}).get(name)
    bounds = f" ({interval['low']:.4f} to {interval['high']:.4f})" if interval else ""
    return f"{metrics[name]:.4f}{bounds}"


def _render_comparisons(result: RetrainingResult) -> str:
    """Render what the model gate measured, which a repeated decision takes from the ledger."""
    gate = _get_model_gate(result)
    lines = [
        f"- {role} {comparison['name']}: {_format_comparison(comparison)}, margin {comparison['margin']:.4f}"
        for role, comparison in gate.get("comparisons", {}).items()
    ]
    if gate.get("is_look"):
        lines.append(
            f"- these are {1 - 2 * gate['level']:.2%} intervals, since one test split decides often; "
            f"this is decision {gate['looks']} on it"
        )
    if result.entry and (recent := result.entry.details.get("recent")):
        lines.append(f"- fresh rows that no model has learned from: {_format_comparison(recent)}")
    elif gate.get("is_look"):
        lines.append("- fresh rows that no model has learned from: too few for a comparison")
    lines += [
        f"- part of the test split that moved: {part['name']}, {_format_difference(part)}"
        for part in gate.get("slices", ())
        if part["has_moved"]
    ]
    if gate.get("rows_missing"):
        # Lines of the ledger from earlier versions lack the split; what is repeated of them is on test.
        split = gate.get("undecided_split", "test")
        lines.append(f"- about {gate['rows_missing']:,} more {split} reviews would decide")
    return "\n".join(lines)


def _get_model_gate(result: RetrainingResult) -> Mapping[str, Any]:
    return (result.entry.details.get("model_gate") if result.entry else None) or {}


def _format_comparison(comparison: Mapping[str, Any]) -> str:
    return f"{comparison['verdict']}, {_format_difference(comparison)} on {comparison['rows']:,} reviews"


def _format_difference(part: Mapping[str, Any]) -> str:
    bounds = f"{part['interval']['low']:+.4f} to {part['interval']['high']:+.4f}"
    return f"AUC {part['difference']:+.4f} ({bounds})"


def _render_changes(result: RetrainingResult) -> str:
    if result.changes is None:
        return ""
    changes = result.changes.to_dict()
    lines = [line for kind, values in changes.items() if values for line in _list_changes(kind, values)]
    return "\n".join(["Changes since the champion:", "", *lines]) if lines else ""


def _list_changes(kind: str, values: Sequence[str]) -> Iterable[str]:
    yield f"- {kind}"
    yield from (f"    - {value}" for value in values[:MAX_LINES])
    if len(values) > MAX_LINES:
        yield f"    - and {len(values) - MAX_LINES} more"


def _render_data_gate(result: RetrainingResult) -> Iterable[str]:
    gate = result.data_gate
    if gate is None:
        return
    for number, violation in enumerate(gate.violations):
        title = "Rows that show it:" if number == 0 else f"Also, {violation.message}:"
        # As code, since a review may contain Markdown, HTML, or the name of a user, who would be notified.
        examples = ["- `" + example.replace("`", "'") + "`" for example in violation.examples]
        if examples or number:
            yield "\n".join([title, "", *examples])
    rows = [
        f"| {name.replace('_', ' ')} | {_format_measurement(value)} |"
        for name, value in gate.measurements.items()
    ]
    if rows:
        yield _fold("Data gate", "\n".join(["| measurement | value |", "| --- | --- |", *rows]))


def _format_measurement(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_format_measurement(number)}" for name, number in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _render_details(result: RetrainingResult) -> str:
    rows = [
        f"| {part['name'].replace('_', ' ')} | {part['reviews']:,} | {_format_difference(part)} |"
        for part in _get_model_gate(result).get("slices", ())
    ]
    if not rows:
        return ""
    header = ["| part | reviews | challenger less champion |", "| --- | --- | --- |"]
    title = "Parts of the test split, with 95% intervals for all of them together"
    return _fold(title, "\n".join([*header, *rows]))


def _render_plots(result: RetrainingResult) -> str:
    """Render the ROC curves that the model gate compared, and the AUCs of the champions so far."""
    if result.entry is None or result.entry.challenger is None or not result.champions:
        return ""
    metrics = {
        assignment.registration.name.partition("@")[2]: _read_test_metrics(assignment.tag.commit)
        for assignment in result.champions
    }
    metrics["challenger"] = _read_test_metrics(None)
    aucs = {name: float(content["auc"]) for name, content in metrics.items() if "auc" in content}
    charts = [render_history(aucs)] if len(aucs) > 1 else []
    if curves := _get_model_gate(result).get("roc"):
        charts.append(render_roc(curves))
    return _fold("Plots", "\n\n".join(charts)) if charts else ""


def _fold(title: str, content: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{content}\n\n</details>"


def _render_instructions(result: RetrainingResult) -> str:
    """Render which stages ran, when the last decision was made, and how to make the same result again."""
    stages = [f"{stage} {seconds:.0f} s" for stage, seconds in result.pipeline.seconds.items()]
    stages += [f"{stage} from the cache" for stage in result.pipeline.restored]
    return "\n".join(
        [
            f"Stages: {', '.join(stages) or 'none ran'}.",
            f"Last decision before this retraining: {result.last_decision or 'none'}.",
            "",
            _explain_reproduction(result.commit),
        ]
    )


def _explain_reproduction(commit: str) -> str:
    status = run_git("status", "--porcelain", "--", *INPUTS) or b""
    if files := [line[3:] for line in status.decode(errors="replace").splitlines()]:
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        return f"No commit reproduces this: `{files[0]}`{more} had changes that were not committed."
    return f"Reproduce: `git switch --detach {commit[:12]} && sentiment retrain`"

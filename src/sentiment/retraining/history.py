"""`sentiment history`: every decision on a model, from the ledger and from the registry."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sentiment.errors import UserError
from sentiment.files import atomic_write, require_file_target
from sentiment.ledger import LedgerEntry, read_ledger
from sentiment.registry.git_tags import ARTIFACT_MD5, CHAMPION, RegistryTag
from sentiment.registry.state import ROLLBACK, Registry, open_registry

PLOT_FORMATS = ("png", "svg", "pdf")

COLOURS = {"promote": "tab:green", "not_better": "tab:red", "cannot_tell": "tab:orange"}
"""Colours of the outcomes in the plot."""


@dataclass(frozen=True)
class Decision:
    """A row of the history.

    Attributes:
        created: UTC time, in ISO format.
        decision: outcome of a retraining; `champion`, `champion (forced)` or `rollback` for a tag.
        model: version of the model; the first digits of its MD5, or of that of the batch, if it has none.
        verdict: verdict on the model; None without one.
        difference: AUC of the model minus AUC of the champion on the test split; None without a comparison.
        low: lower bound of the interval of the difference.
        high: upper bound.
        reason: why, in one sentence.
        by: author of the tag; None for a retraining.
    """

    created: str
    decision: str
    model: str
    verdict: str | None
    difference: float | None
    low: float | None
    high: float | None
    reason: str
    by: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return the row as it is printed in JSON."""
        return asdict(self)


def read_history() -> list[Decision]:
    """Return all decisions, oldest first.

    Raises:
        UserError: tags are missing in this clone, or the ledger cannot be read.
    """
    return collect_history(read_ledger(), open_registry())


def collect_history(entries: Sequence[LedgerEntry], registry: Registry) -> list[Decision]:
    """Return the decisions of retrainings and the changes of the champion, oldest first."""
    names = {
        tag.details[ARTIFACT_MD5]: tag.name
        for tag in registry.versions.values()
        if ARTIFACT_MD5 in tag.details
    }
    rows = [_describe_entry(entry, names) for entry in entries]
    rows += [
        _describe_tag(tag, registry)
        for tag in registry.tags
        if tag.stage == CHAMPION and not tag.is_cancellation
    ]
    return sorted(rows, key=lambda row: datetime.fromisoformat(row.created))


def _describe_entry(entry: LedgerEntry, names: dict[str, str]) -> Decision:
    gate = entry.details.get("model_gate") or {}
    comparison = (gate.get("comparisons") or {}).get("champion") or {}
    interval = comparison.get("interval") or {}
    md5 = entry.challenger or entry.batch or ""
    return Decision(
        created=entry.created,
        decision=entry.outcome,
        model=names.get(md5, md5[:7] if entry.challenger or not md5 else f"batch {md5[:7]}"),
        verdict=entry.verdict,
        difference=comparison.get("difference"),
        low=interval.get("low"),
        high=interval.get("high"),
        reason=entry.reason,
        by=None,
    )


def _describe_tag(tag: RegistryTag, registry: Registry) -> Decision:
    version = registry.versions.get(tag.commit)
    is_rollback = tag.details.get("Action") == ROLLBACK
    forced = " (forced)" if "Forced" in tag.details else ""
    return Decision(
        created=tag.created.isoformat(),
        decision="rollback" if is_rollback else f"{CHAMPION}{forced}",
        model=version.name if version else tag.commit[:7],
        verdict=tag.details.get("Verdict"),
        difference=None,
        low=None,
        high=None,
        reason=tag.reason,
        by=tag.author,
    )


def format_history(rows: Sequence[Decision]) -> str:
    """Return the decisions as a table, a line each."""
    cells = [("date (UTC)", "decision", "model", "verdict", "AUC difference", "reason")]
    for row in rows:
        difference = ""
        if row.difference is not None and row.low is not None and row.high is not None:
            difference = f"{row.difference:+.4f} ({row.low:+.4f} to {row.high:+.4f})"
        date = datetime.fromisoformat(row.created).strftime("%Y-%m-%d %H:%M")
        cells.append((date, row.decision, row.model, row.verdict or "", difference, row.reason))
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]) - 1)]
    lines = []
    for *aligned, reason in cells:
        columns = [cell.ljust(width) for cell, width in zip(aligned, widths, strict=True)]
        lines.append("  ".join([*columns, reason]).rstrip())
    return "\n".join(lines)


def plot_history(rows: Sequence[Decision], file: Path) -> None:
    """Plot the differences to the champion over time, with their intervals, and the changes of the champion.

    Args:
        rows: the decisions.
        file: file to write, as PNG, SVG or PDF by its suffix.

    Raises:
        UserError: the suffix is another one, or the file is a folder.
    """
    suffix = file.suffix.removeprefix(".").lower()
    if suffix not in PLOT_FORMATS:
        raise UserError(f"--plot: {file} must end with one of .{', .'.join(PLOT_FORMATS)}")
    require_file_target(file)
    from matplotlib.figure import Figure  # takes a second, which the table does without

    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    axes = figure.subplots()
    for outcome, colour in COLOURS.items():
        compared = [row for row in rows if row.decision == outcome and row.difference is not None]
        differences = [row.difference or 0.0 for row in compared]
        axes.errorbar(
            [_compute_days(row) for row in compared],
            differences,
            yerr=[
                [value - (row.low or 0.0) for value, row in zip(differences, compared, strict=True)],
                [(row.high or 0.0) - value for value, row in zip(differences, compared, strict=True)],
            ],
            fmt="o",
            capsize=3,
            color=colour,
            label=outcome.replace("_", " "),
        )
    for row in rows:
        if row.by is not None:
            time = _compute_days(row)
            axes.axvline(time, color="grey", linestyle="--", linewidth=1)
            axes.annotate(
                f"{row.model}{' (rollback)' if row.decision == 'rollback' else ''}",
                (time, 1),
                xycoords=("data", "axes fraction"),
                rotation=90,
                fontsize=7,
                verticalalignment="top",
            )
    axes.xaxis_date()
    axes.axhline(0, color="black", linewidth=1)
    axes.set(xlabel="date of the decision", ylabel="AUC, new model minus champion")
    axes.legend(title="outcome; dashed: new champion")
    figure.autofmt_xdate()
    with atomic_write(file) as temporary:
        figure.savefig(temporary, format=suffix)


def _compute_days(row: Decision) -> float:
    """Return the days since 1970, matplotlib's unit of dates."""
    return datetime.fromisoformat(row.created).timestamp() / 86_400

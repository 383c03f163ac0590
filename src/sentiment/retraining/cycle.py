"""Scheduled retraining: download the data, run `dvc repro`, report the differences from the last commit."""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import typer

from sentiment import paths
from sentiment.errors import UserError
from sentiment.files import atomic_write
from sentiment.params import load_params
from sentiment.repository import read_committed

REPORT = paths.REPORTS / "retrain.md"

STAGE_RUN_LINE = re.compile(r"^Running stage '([^']+)'", re.MULTILINE)
"""Line that `dvc repro` prints for a stage that it runs."""

STAGE_RESTORED_LINE = re.compile(r"^Stage '([^']+)' is cached", re.MULTILINE)
"""Line that `dvc repro` prints for a stage whose outputs it restores from the run cache."""


@dataclass(frozen=True)
class RetrainingResult:
    """Result of a retraining."""

    ran: Sequence[str]
    """Stages that ran, without the forced download."""
    restored: Sequence[str]
    """Stages whose outputs came from the DVC cache."""
    changed: bool
    """Whether dvc.lock differs from the last commit: in data, parameters, code or results."""

    @property
    def is_unchanged(self) -> bool:
        """Return whether no stage ran or was restored, and dvc.lock equals the committed one."""
        return not (self.ran or self.restored or self.changed)


def retrain() -> None:
    """Force the download, run the stages whose inputs change, and write reports/retrain.md.

    If there is no new data, download writes the same outputs and no other stage runs. The report compares
    with the last commit, so a second retraining before the next commit reports the same differences.

    Raises:
        UserError: a stage fails, after it has printed the reason; or there is no commit to compare with,
            which is checked before any stage runs.
    """
    load_params()
    _require_commit()
    REPORT.unlink(missing_ok=True)  # so that a failed retraining leaves no report of an earlier one
    _run_dvc("repro", "--force", "--single-item", "download", fails_with="the data could not be refreshed")
    log = _run_dvc("repro", fails_with="a stage failed")
    result = RetrainingResult(
        STAGE_RUN_LINE.findall(log), STAGE_RESTORED_LINE.findall(log), changed=_has_lock_changed()
    )
    with atomic_write(REPORT) as temporary:
        temporary.write_text(_format_report(result), encoding="utf-8")
    typer.echo(f"{REPORT}: {'no changes' if result.is_unchanged else 'lists the changes'}")


def _require_commit() -> None:
    """Raise UserError if `dvc params diff`, which the report needs, cannot read the last commit."""
    command = [sys.executable, "-m", "dvc", "params", "diff", "--json", "HEAD"]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode != 0 or read_committed(str(paths.PARAMS)) is None:
        raise UserError(
            "retrain compares with the last commit, but git and DVC cannot read any commit: this "
            "is an exported archive, core.no_scm is set, or the repository has no commit. To train without "
            "this comparison, run `dvc repro`; to create a commit, run `dvc config core.no_scm false`, "
            "`git init`, `git add --all` and `git commit`"
        )


def _has_lock_changed() -> bool:
    current = paths.LOCK.read_bytes() if paths.LOCK.exists() else None
    return current != read_committed(str(paths.LOCK))


def _format_report(result: RetrainingResult) -> str:
    if result.is_unchanged:
        return "# Retraining\n\nNo changes: no stage ran, the committed model is up to date.\n"
    params = _format_difference("params") or "No parameter changed."
    metrics = _format_difference("metrics") or "No metric changed."
    return f"""# Retraining

- Stages that ran: {", ".join(result.ran) or "none"}.
- Stages restored from the DVC cache: {", ".join(result.restored) or "none"}.
- `dvc.lock`: {"changed" if result.changed else "as committed; the results are equal bit for bit"}.

## Parameters compared with the last commit

{params}

## Metrics compared with the last commit

{metrics}
"""


def _format_difference(what: Literal["params", "metrics"]) -> str:
    """Return the differences from the last commit as a Markdown table, or an empty string.

    Without differences, DVC's JSON is empty, but its Markdown still has the header of a table.
    """
    if not json.loads(_run_dvc(what, "diff", "--json", "HEAD")):
        return ""
    return _run_dvc(what, "diff", "--md", "HEAD").strip()


def _run_dvc(*arguments: str, fails_with: str = "dvc failed") -> str:
    """Run DVC and return its output; print the output of `dvc repro` line by line as it appears."""
    command = [sys.executable, "-m", "dvc", *arguments]
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            lines.append(line)
            if arguments[0] == "repro":
                print(line, end="", flush=True)
    if process.returncode != 0:
        raise UserError(f"{fails_with}: dvc {' '.join(arguments)} exited with status {process.returncode}")
    return "".join(lines)

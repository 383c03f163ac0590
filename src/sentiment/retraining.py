"""Scheduled retraining: fresh data, `dvc repro`, and a report against the committed state."""

import json
import logging
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sentiment import paths
from sentiment.errors import UserError
from sentiment.files import atomic_write
from sentiment.params import load_params
from sentiment.repository import read_committed

logger = logging.getLogger(__name__)


REPORT = paths.REPORTS / "retrain.md"

RAN = re.compile(r"^Running stage '([^']+)'", re.MULTILINE)
RESTORED = re.compile(r"^Stage '([^']+)' is cached", re.MULTILINE)
"""What `dvc repro` prints for a stage whose outputs, made from the same inputs, the cache already has."""


@dataclass(frozen=True)
class Outcome:
    """What a retraining did."""

    ran: Sequence[str]
    """Stages that ran, apart from the download that is always made."""
    restored: Sequence[str]
    """Stages whose results the DVC cache already had."""
    changed: bool
    """Whether dvc.lock is not that of the last commit: other data, parameters, code or results."""

    @property
    def is_nothing_new(self) -> bool:
        """Whether all is as committed."""
        return not (self.ran or self.restored or self.changed)


def retrain() -> None:
    """Force download, run the stages that its outputs or the parameters change, write reports/retrain.md.

    Where nothing is new, download's outputs are what they were and no other stage runs. Everything is
    compared with the last commit, so that a second retraining before that of the first reports the same.
    Raises UserError where a stage fails, which has then said why; before any stage runs, where there is no
    commit to compare with.
    """
    load_params()
    _require_commit()
    REPORT.unlink(missing_ok=True)  # else a retraining that fails would leave that of an earlier one
    _dvc("repro", "--force", "--single-item", "download", fails_with="the data could not be refreshed")
    log = _dvc("repro", fails_with="a stage failed")
    outcome = Outcome(RAN.findall(log), RESTORED.findall(log), changed=_lock_changed())
    with atomic_write(REPORT) as temporary:
        temporary.write_text(_report(outcome), encoding="utf-8")
    logger.info(f"{REPORT}: {'nothing new' if outcome.is_nothing_new else 'see what changed'}")


def _require_commit() -> None:
    """Refuse to start where `dvc params diff`, which the report needs, would fail after all the work."""
    command = [sys.executable, "-m", "dvc", "params", "diff", "--json", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0 or read_committed(str(paths.PARAMS)) is None:
        raise UserError(
            "retrain compares with the last commit, and there is none that git and DVC can read: an exported "
            "archive, core.no_scm, or a repository without a commit. `dvc repro` trains without one; else "
            "`dvc config core.no_scm false`, `git init`, `git add --all`, `git commit`"
        )


def _lock_changed() -> bool:
    now = paths.LOCK.read_bytes() if paths.LOCK.exists() else None
    return now != read_committed(str(paths.LOCK))


def _report(outcome: Outcome) -> str:
    if outcome.is_nothing_new:
        return "# Retraining\n\nNothing new: no stage ran, the committed model stands.\n"
    params = _difference("params") or "No parameter changed."
    metrics = _difference("metrics") or "No metric changed."
    return f"""# Retraining

- Stages that ran: {", ".join(outcome.ran) or "none"}.
- Stages restored from the DVC cache: {", ".join(outcome.restored) or "none"}.
- `dvc.lock`: {"changed" if outcome.changed else "as committed, the results are the same bit for bit"}.

## Parameters against the committed state

{params}

## Metrics against the committed state

{metrics}
"""


def _difference(what: Literal["params", "metrics"]) -> str:
    """Return what differs from the last commit as a Markdown table, nothing where nothing does.

    Of an empty difference DVC's Markdown has the head of a table; its JSON is empty.
    """
    if not json.loads(_dvc(what, "diff", "--json", "HEAD")):
        return ""
    return _dvc(what, "diff", "--md", "HEAD").strip()


def _dvc(*arguments: str, fails_with: str = "dvc failed") -> str:
    """Run dvc, pass on what a repro prints line by line, and return it."""
    command = [sys.executable, "-m", "dvc", *arguments]
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            lines.append(line)
            if arguments[0] == "repro":
                print(line, end="", flush=True)
    if process.returncode != 0:
        raise UserError(f"{fails_with}: dvc {' '.join(arguments)} ended with status {process.returncode}")
    return "".join(lines)

"""Scheduled retraining: fresh data, `dvc repro`, and a report against the committed state."""

import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sentiment import paths
from sentiment.errors import UserError
from sentiment.outputs import replacing
from sentiment.params import load_params
from sentiment.progress import say

REPORT = paths.REPORTS / "retrain.md"
LOCK = Path("dvc.lock")

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
    """Whether dvc.lock is another one: other data, parameters, code or results."""

    @property
    def is_nothing_new(self) -> bool:
        """Whether everything stands as it stood."""
        return not (self.ran or self.restored or self.changed)


def retrain() -> None:
    """Force download, run the stages that its outputs or the parameters change, write reports/retrain.md.

    Where nothing is new, download's outputs are what they were and no other stage runs.
    Raises UserError where a stage fails; the stage has then said why.
    """
    load_params()
    before = _lock()
    _dvc("repro", "--force", "--single-item", "download", fails_with="the data could not be refreshed")
    log = _dvc("repro", fails_with="a stage failed")
    outcome = Outcome(RAN.findall(log), RESTORED.findall(log), changed=_lock() != before)
    with replacing(REPORT) as temporary:
        temporary.write_text(_report(outcome), encoding="utf-8")
    say(f"{REPORT}: {'nothing new' if outcome.is_nothing_new else 'see what changed'}")


def _lock() -> bytes:
    return LOCK.read_bytes() if LOCK.exists() else b""


def _report(outcome: Outcome) -> str:
    if outcome.is_nothing_new:
        return "# Retraining\n\nNothing new: no stage ran, the committed model stands.\n"
    params = _dvc("params", "diff", "--md").strip() or "No parameter changed."
    metrics = _dvc("metrics", "diff", "--md").strip() or "No metric changed."
    return f"""# Retraining

- Stages that ran: {", ".join(outcome.ran) or "none"}.
- Stages restored from the DVC cache: {", ".join(outcome.restored) or "none"}.
- `dvc.lock`: {"changed" if outcome.changed else "unchanged, the results are the same bit for bit"}.

## Parameters against the committed state

{params}

## Metrics against the committed state

{metrics}
"""


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

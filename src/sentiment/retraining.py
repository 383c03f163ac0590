"""Scheduled retraining: fresh data, `dvc repro`, and a report against the committed state."""

import subprocess
import sys

from sentiment import paths
from sentiment.errors import UserError
from sentiment.outputs import replacing
from sentiment.params import load_params
from sentiment.progress import say

REPORT = paths.REPORTS / "retrain.md"


def retrain() -> None:
    """Force download, run the stages that its outputs or the parameters change, write reports/retrain.md.

    Where nothing is new, download's outputs are what they were and no other stage runs.
    Raises UserError where a stage fails; the stage has then said why.
    """
    load_params()
    _dvc("repro", "--force", "--single-item", "download", fails_with="the data could not be refreshed")
    log = _dvc("repro", fails_with="a stage failed")
    ran = [line.split("'")[1] for line in log.splitlines() if line.startswith("Running stage")]
    with replacing(REPORT) as temporary:
        temporary.write_text(_report(ran), encoding="utf-8")
    say(f"{REPORT}: {', '.join(ran) or 'nothing'} retrained")


def _report(ran: list[str]) -> str:
    if not ran:
        return "# Retraining\n\nNothing new: no stage ran, the committed model stands.\n"
    params = _dvc("params", "diff", "--md").strip() or "No parameter changed."
    metrics = _dvc("metrics", "diff", "--md").strip() or "No metric changed."
    return f"""# Retraining

Stages that ran: {", ".join(ran)}.

## Parameters against the committed state

{params}

## Metrics against the committed state

{metrics}
"""


def _dvc(*arguments: str, fails_with: str = "dvc failed") -> str:
    """Run dvc, pass on what it prints line by line, and return it."""
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

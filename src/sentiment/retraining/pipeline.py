"""`dvc repro` as a retraining runs it: which stages ran, how long they took, and how they failed."""

import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from sentiment.errors import TrainingDivergedError, UserError

STAGE_RUN_LINE = re.compile(r"^Running stage '([^']+)'")
"""Line that `dvc repro` prints for a stage that it runs."""

STAGE_RESTORED_LINE = re.compile(r"^Stage '([^']+)' is cached")
"""Line that `dvc repro` prints for a stage whose outputs it restores from the run cache."""

STAGE_FAILED_LINE = re.compile(r"failed to reproduce '([^']+)'")
STAGE_STATUS = re.compile(r"exited with (-?\d+)")
INTERRUPTED = 130
"""Exit status of a stage after Ctrl-C or SIGTERM."""


class StageFailedError(UserError):
    """A stage failed for a reason that is neither a user's mistake nor a divergence."""

    exit_status = 1


@dataclass(frozen=True)
class PipelineRun:
    """What `dvc repro` did.

    Attributes:
        seconds: duration of each stage that ran, by name, in the order of the pipeline.
        restored: stages whose outputs came from the DVC cache.
    """

    seconds: dict[str, float]
    restored: Sequence[str]

    def __add__(self, later: "PipelineRun") -> "PipelineRun":
        """Return both runs as one."""
        return PipelineRun({**self.seconds, **later.seconds}, [*self.restored, *later.restored])


def run_pipeline(*arguments: str) -> PipelineRun:
    """Run `dvc repro`, and print its output line by line as it appears.

    Args:
        arguments: further arguments of `dvc repro`.

    Raises:
        TrainingDivergedError: a training diverged.
        UserError: a stage reported a mistake of the user, after it has printed the reason.
        StageFailedError: a stage failed otherwise, for example by a signal.
    """
    command = [sys.executable, "-m", "dvc", "repro", *arguments]
    starts: list[tuple[str, float]] = []
    restored: list[str] = []
    failed, status = None, None
    # In one pipe with standard error, to which DVC writes the status with which a stage failed.
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        for raw in process.stdout or ():
            sys.stdout.buffer.write(raw)
            sys.stdout.flush()
            line = raw.decode(errors="replace")
            if match := STAGE_RUN_LINE.match(line):
                starts.append((match[1], time.monotonic()))
            elif match := STAGE_RESTORED_LINE.match(line):
                restored.append(match[1])
            if match := STAGE_FAILED_LINE.search(line):
                failed = match[1]
            if match := STAGE_STATUS.search(line):
                status = int(match[1])
    if process.returncode:
        raise _describe_failure(failed, status, process.returncode)
    ends = [*(start for _, start in starts[1:]), time.monotonic()]
    return PipelineRun(
        {name: end - start for (name, start), end in zip(starts, ends, strict=False)}, restored
    )


def _describe_failure(stage: str | None, status: int | None, dvc_status: int) -> BaseException:
    """Return the exception for a failed `dvc repro`.

    Args:
        stage: stage that failed; None if DVC failed itself.
        status: exit status of the stage.
        dvc_status: exit status of DVC.
    """
    if stage is None or status is None:
        return UserError(f"`dvc repro` failed with status {dvc_status}; its message is above")
    if status == INTERRUPTED:
        return KeyboardInterrupt()
    message = f"{stage} failed with status {status}; its message is above"
    if status == TrainingDivergedError.exit_status:
        return TrainingDivergedError(message)
    return UserError(message) if status == UserError.exit_status else StageFailedError(message)

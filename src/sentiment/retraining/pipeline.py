"""`dvc repro` as a retraining runs it: which stages ran, how long they took, and how they failed."""

import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from sentiment.child_processes import end_processes
from sentiment.errors import INTERRUPTED_STATUS, TrainingDivergedError, UserError

STAGE_RUN_LINE = re.compile(r"^Running stage '([^']+)'")
"""Line that `dvc repro` prints for a stage that it runs."""

STAGE_RESTORED_LINE = re.compile(r"^Stage '([^']+)' is cached")
"""Line that `dvc repro` prints for a stage whose outputs it restores from the run cache."""

STAGE_FAILED_LINE = re.compile(r"failed to reproduce '([^']+)'")
STAGE_STATUS = re.compile(r"exited with (-?\d+)")
STAGE_MESSAGE = "error: "
"""Prefix of the message with which a stage ends, as `errors.exits_cleanly` prints it."""

CONTINUATION = "  "
"""Prefix of its other lines."""


class StageMistakeError(UserError):
    """A stage reported a mistake that the user can correct.

    Attributes:
        stage: name of the stage.
        lines: the stage's message; the first line has the cause, and others have examples.
    """

    def __init__(self, stage: str, status: int, lines: Sequence[str]) -> None:
        self.stage = stage
        self.lines = lines or ("its message is above",)
        super().__init__("\n  ".join([f"{stage} failed with status {status}: {self.lines[0]}", *lines[1:]]))


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


NOTHING_RAN = PipelineRun({}, ())


def run_pipeline(*arguments: str) -> PipelineRun:
    """Run `dvc repro`, and print its output line by line as it appears.

    If an exception such as Ctrl-C ends this function before, `dvc repro` and its stages end, too. Otherwise
    they would train on, and the next `dvc repro` would meet DVC's lock.

    Args:
        arguments: further arguments of `dvc repro`.

    Raises:
        TrainingDivergedError: a training diverged.
        StageMistakeError: a stage reported a mistake of the user.
        StageFailedError: a stage failed otherwise, for example by a signal.
        UserError: DVC failed itself.
    """
    command = [sys.executable, "-m", "dvc", "repro", *arguments]
    starts: list[tuple[str, float]] = []
    restored: list[str] = []
    failure = _Failure()
    # In one pipe with standard error, to which DVC writes the status with which a stage failed.
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            for raw in process.stdout or ():
                sys.stdout.buffer.write(raw)
                sys.stdout.flush()
                line = raw.decode(errors="replace")
                if match := STAGE_RUN_LINE.match(line):
                    starts.append((match[1], time.monotonic()))
                elif match := STAGE_RESTORED_LINE.match(line):
                    restored.append(match[1])
                failure.read(line.rstrip())
        except BaseException as error:
            sys.stdout.buffer.write(end_processes(process, are_told=type(error) is KeyboardInterrupt))
            sys.stdout.flush()
            raise
    if process.returncode:
        raise failure.to_exception(process.returncode)
    ends = [*(start for _, start in starts[1:]), time.monotonic()]
    return PipelineRun(
        {name: end - start for (name, start), end in zip(starts, ends, strict=False)}, restored
    )


@dataclass
class _Failure:
    """What the output of `dvc repro` contains about the stage that failed.

    Attributes:
        stage: its name; None if DVC failed itself.
        status: its exit status.
        message: lines of the last message with which a stage ended.
    """

    stage: str | None = None
    status: int | None = None
    message: list[str] = field(default_factory=list)
    _is_message: bool = False

    def read(self, line: str) -> None:
        """Read the next line of the output."""
        if line.startswith(STAGE_MESSAGE):
            self.message = [line.removeprefix(STAGE_MESSAGE)]
            self._is_message = True
        elif self._is_message and line.startswith(CONTINUATION):
            self.message.append(line.removeprefix(CONTINUATION))
        else:
            self._is_message = False
        if match := STAGE_FAILED_LINE.search(line):
            self.stage = match[1]
        if match := STAGE_STATUS.search(line):
            self.status = int(match[1])

    def to_exception(self, dvc_status: int) -> BaseException:
        """Return the exception for a `dvc repro` that failed with a status."""
        if self.stage is None or self.status is None:
            return UserError(f"`dvc repro` failed with status {dvc_status}; its message is above")
        if self.status == INTERRUPTED_STATUS:
            return KeyboardInterrupt()
        if self.status == UserError.exit_status:
            return StageMistakeError(self.stage, self.status, self.message)
        reason = self.message[0] if self.message else "its message is above"
        kind = TrainingDivergedError if self.status == TrainingDivergedError.exit_status else StageFailedError
        return kind(f"{self.stage} failed with status {self.status}: {reason}")

"""When a fault is injected: in which stage and phase, or while DVC works between two stages."""

import random
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from bench.faults.project import REPRO, Faulted, polled

Kind = Literal["start", "middle", "writing", "between"]
KINDS: tuple[Kind, ...] = ("start", "middle", "writing", "between")

FIND_S, LOOK_S = 0.01, 0.0005
"""Polling interval for a process, and for a file, in seconds."""

WRITING_S = 0.03
"""Seconds after an output appears within which the fault comes: the file may still be incomplete."""

OUTPUT_SHARE = 0.5
"""Share of the faults during writing that come as an output appears; the others come before the end."""

LOCK_SHARE = 0.5
"""Share of the faults between stages that wait until dvc.lock is being written."""


@dataclass(frozen=True)
class Timing:
    """How long a stage takes in a run without faults, in seconds."""

    first_output: float
    """From the start of its process."""
    writing: float
    """From then to the end of its process."""
    after: float
    """From the end of its process to the start of the next one's, or to DVC's end."""


@dataclass(frozen=True)
class Moment:
    """One moment, as reproducible from its seed as the timing of a process allows."""

    stage: str
    kind: Kind
    seed: str
    at_once: bool = False
    """Between stages: as soon as the stage's process has ended, before DVC writes its files."""

    def __str__(self) -> str:
        return f"{self.stage}, {self.kind}"

    def comes(self, project: Faulted, process: subprocess.Popen[bytes], timing: Timing) -> bool:
        """Wait for the moment. Return False if the process ended before it."""
        rng = random.Random(self.seed)  # noqa: S311  # moments, no secrets
        outputs = [project.root / path for path in project.outputs(self.stage)]
        for _ in polled(process, FIND_S):
            if stage := project.stage_process(process, self.stage):
                break
        else:
            return False
        match self.kind:
            case "start":
                return _waited(process, rng.uniform(0, 0.5) * timing.first_output)
            case "middle":
                return _waited(process, rng.uniform(0.5, 1) * timing.first_output, outputs)
            case "writing":
                if rng.random() < OUTPUT_SHARE:
                    awaited, pause = [rng.choice(outputs)], rng.uniform(0, WRITING_S)
                else:  # a stage also logs to MLflow between its first output and its last
                    awaited, pause = outputs, rng.uniform(0, 0.9) * timing.writing
                return _appeared(process, awaited) and _waited(process, pause)
            case "between":
                if not _gone(process, stage):
                    return False
                if self.at_once:
                    return True
                if rng.random() < LOCK_SHARE:
                    return _lock_is_written(project, process)
                return _waited(process, rng.uniform(0, 0.9) * timing.after)


def measured(project: Faulted) -> dict[str, Timing]:
    """Run the pipeline without a fault and return how long its stages take.

    Raises RuntimeError if it fails.
    """
    process = project.start(*REPRO)
    started: dict[str, float] = {}
    first: dict[str, float] = {}
    ended: dict[str, float] = {}
    stages = project.stages()
    outputs = {stage: [project.root / path for path in project.outputs(stage)] for stage in stages}
    running: dict[str, psutil.Process] = {}
    for _ in polled(process, FIND_S):
        now = time.monotonic()
        for stage in stages:
            if stage not in started:
                if found := project.stage_process(process, stage):
                    started[stage], running[stage] = now, found
                break
            if stage not in first and any(map(_exists, outputs[stage])):
                first[stage] = now
            if stage not in ended and not _runs(running[stage]):
                ended[stage] = now
            if stage not in ended:
                break
    now = time.monotonic()
    if project.ended(process, "without a fault"):
        raise RuntimeError(f"the pipeline fails without any fault:\n{project.output()}")
    next_start = dict(zip(stages, [*(started[stage] for stage in stages[1:]), now], strict=True))
    for stage in stages:
        first.setdefault(stage, ended.setdefault(stage, now))
    return {
        stage: Timing(
            first[stage] - started[stage], ended[stage] - first[stage], next_start[stage] - ended[stage]
        )
        for stage in stages
    }


def strata(stages: list[str], each: int, seed: int) -> list[Moment]:
    """Return `each` moments of every kind for every stage, each with its own seed."""
    return [
        Moment(stage, kind, f"{seed}/{stage}/{kind}/{number}")
        for number in range(each)
        for stage in stages
        for kind in KINDS
    ]


def dealt(moments: list[Moment], cases: int, seed: int) -> list[list[Moment]]:
    """Distribute moments over runs, in the order in which a run reaches them.

    No run gets two moments between the same stages: after the first, the stage may not run again.
    """
    rng = random.Random(f"{seed}/dealt")  # noqa: S311
    stages = list(dict.fromkeys(moment.stage for moment in moments))
    while True:
        shuffled = rng.sample(moments, len(moments))
        hands = [shuffled[start::cases] for start in range(cases)]
        if all(_playable(hand) for hand in hands):
            return [
                sorted(hand, key=lambda m: (stages.index(m.stage), KINDS.index(m.kind))) for hand in hands
            ]


def _playable(hand: list[Moment]) -> bool:
    between = [moment.stage for moment in hand if moment.kind == "between"]
    return len(between) == len(set(between))


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


def _exists(path: Path) -> bool:
    return path.exists() or _partial(path).exists()


def _waited(process: subprocess.Popen[bytes], seconds: float, until: list[Path] | None = None) -> bool:
    """Wait a number of seconds, or until an output appears. Return whether the process still runs."""
    end = time.monotonic() + seconds
    return any(time.monotonic() >= end or any(map(_exists, until or ())) for _ in polled(process, LOOK_S))


def _appeared(process: subprocess.Popen[bytes], outputs: list[Path]) -> bool:
    return any(any(map(_exists, outputs)) for _ in polled(process, LOOK_S))


def _gone(process: subprocess.Popen[bytes], stage: psutil.Process) -> bool:
    """Wait until a stage's process has ended, if DVC still runs then."""
    return any(not _runs(stage) for _ in polled(process, LOOK_S))


def _runs(stage: psutil.Process) -> bool:
    try:
        return bool(stage.is_running() and stage.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _lock_is_written(project: Faulted, process: subprocess.Popen[bytes]) -> bool:
    """Wait until dvc.lock is opened for writing, which truncates it."""
    lock = project.root / "dvc.lock"
    before = _state_of(lock)
    return any(_state_of(lock) != before for _ in polled(process, LOOK_S / 5))


def _state_of(path: Path) -> Mapping[str, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return {"size": status.st_size, "time": status.st_mtime_ns}

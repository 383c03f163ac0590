"""What a trial notes beside its values, under names that the study keeps as user attributes."""

from dataclasses import asdict, dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial

ERROR = "error"
"""Why a failed trial failed, in one line."""

WALL_SECONDS = "wall_seconds"
CPU_SECONDS = "cpu_seconds"
"""What a trial took, over all processes that worked on it. Of the machine: for MLflow, for no DVC output."""

PROGRESS = "progress"


@dataclass(frozen=True)
class Progress:
    """How far a trial got: epochs completed, training steps taken, and those it would have taken in all."""

    epochs: int
    steps: int
    planned_steps: int


def note_progress(trial: optuna.Trial, progress: Progress) -> None:
    """Write into the study how far a trial is: in one attribute, since each one waits for the disk."""
    trial.set_user_attr(PROGRESS, asdict(progress))


def progress_of(trial: FrozenTrial) -> Progress | None:
    """Return how far a trial got, None where it never said."""
    noted: dict[str, Any] | None = trial.user_attrs.get(PROGRESS)
    return None if noted is None else Progress(**noted)


def error_of(trial: FrozenTrial) -> str | None:
    """Return why a trial failed, in one line; None where it did not, or never said."""
    error = trial.user_attrs.get(ERROR)
    return None if error is None else " ".join(str(error).split())

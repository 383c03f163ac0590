"""What can be read off a trial: its AUC, and what it notes beside it, under names of user attributes."""

from collections.abc import Iterable
from dataclasses import dataclass

import optuna
from optuna.trial import FrozenTrial, TrialState

ERROR = "error"
"""Why a failed trial failed."""

WALL_SECONDS, CPU_SECONDS = "wall_seconds", "cpu_seconds"
"""What a trial took, over all processes that worked on it. Of the machine: for MLflow, for no DVC output."""

STEPS, PLANNED_STEPS = "steps", "planned_steps"


@dataclass(frozen=True)
class Progress:
    """Training steps that a trial took, and those of its whole training."""

    steps: int
    planned_steps: int


def note_progress(trial: optuna.Trial, progress: Progress) -> None:
    """Write into the study how far a trial is."""
    trial.set_user_attr(STEPS, progress.steps)
    trial.set_user_attr(PLANNED_STEPS, progress.planned_steps)


def progress_of(trial: FrozenTrial) -> Progress | None:
    """Return how far a trial got, None where it never said."""
    noted = trial.user_attrs
    return Progress(noted[STEPS], noted[PLANNED_STEPS]) if {STEPS, PLANNED_STEPS} <= noted.keys() else None


def error_of(trial: FrozenTrial) -> str | None:
    """Return why a trial failed, in one line; None where it did not, or never said."""
    error = trial.user_attrs.get(ERROR)
    return None if error is None else " ".join(str(error).split())


def value_of(trial: FrozenTrial) -> float:
    """Return the AUC of a finished trial. Raises ValueError of one that is not."""
    if trial.value is None:
        raise ValueError(f"trial {trial.number} has no AUC")
    return trial.value


def ranked(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Return the finished trials, best first; of equal ones the earlier."""
    finished = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    return sorted(finished, key=lambda trial: (-value_of(trial), trial.number))

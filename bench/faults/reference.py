"""The result of a run without faults, and the differences of another run."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from bench.faults.moments import Timing, measured
from bench.faults.project import Faulted
from bench.small import copy_repository


@dataclass(frozen=True)
class Reference:
    """Everything that must be equal, and the seconds of each stage."""

    timings: Mapping[str, Timing]
    files: Mapping[str, bytes]
    study: list[tuple[Any, ...]]
    runs: Counter[tuple[object, ...]]

    @classmethod
    def measured(cls, root: Path) -> Self:
        """Run the small cut without a fault. Raises RuntimeError if it fails."""
        copy_repository(root)
        project = Faulted(root)
        timings = measured(project)
        return cls(timings, project.files(), project.study(), project.runs())

    def differences(self, project: Faulted) -> list[str]:
        """Return the files, trials and runs in which a finished project differs."""
        found = project.files()
        names = sorted(self.files.keys() | found.keys())
        differing = [
            f"{name}: {_compared(self.files.get(name), found.get(name))}"
            for name in names
            if self.files.get(name) != found.get(name)
        ]
        if (study := project.study()) != self.study:
            differing.append(f"study: {study} instead of {self.study}")
        runs = project.runs()
        differing += [f"MLflow: {count} too many of {run}" for run, count in (runs - self.runs).items()]
        differing += [f"MLflow: {count} missing of {run}" for run, count in (self.runs - runs).items()]
        return differing


def _compared(right: bytes | None, found: bytes | None) -> str:
    if right is None:
        return "left over"
    return "missing" if found is None else "differs"

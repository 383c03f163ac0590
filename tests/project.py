"""A temporary copy of the repository, used as a user uses it: through `dvc`, git and the stages."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run

from bench.small import SMALL, copy_repository, inherited, set_params
from sentiment.training.checkpoint import STATE_FILE

ROOT = Path(__file__).parents[1]
PATIENCE_S = 180.0

Seen = TypeVar("Seen")


@dataclass(frozen=True)
class Project:
    """A repository in its own folder."""

    root: Path

    def run(
        self, *command: str, status: int | None = 0, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command at the root and require its exit status; None accepts any."""
        done = subprocess.run(
            command,
            cwd=self.root,
            env={**inherited(), **environment},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if status is not None:
            assert done.returncode == status, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def start(self, *command: str, log: Path | None = None, **environment: str) -> subprocess.Popen[bytes]:
        """Start a command at the root in its own process group; do not wait for it.

        log: where its standard output and error go.
        """
        with (log or Path(os.devnull)).open("wb") as output:
            return subprocess.Popen(
                command,
                cwd=self.root,
                env={**inherited(), **environment},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def stage(self, name: str, status: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run one stage without DVC."""
        return self.run("python", "-m", f"stages.{name}", status=status, **environment)

    def set_params(self, changes: Mapping[str, Any]) -> None:
        """Change values in params.yaml by dotted path."""
        set_params(self.root, changes)

    def metrics(self, stage: str) -> dict[str, Any]:
        """Read a stage's metrics."""
        return dict(json.loads((self.root / "metrics" / f"{stage}.json").read_text()))

    def commit(self, message: str) -> None:
        """Commit everything that git does not ignore."""
        self.run("git", "add", "--all")
        self.run("git", "commit", "-qm", message)

    def runs(self, condition: str = "") -> list[Run]:
        """Return the runs in the project's own store, newest first."""
        mlflow.set_tracking_uri(f"sqlite:///{self.root}/mlruns/mlflow.db")
        client = MlflowClient()
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        return list(client.search_runs(experiments, condition))

    def trial_checkpoints(self, number: int) -> list[Path]:
        """Return the state files of the checkpoints that a trial of a search has."""
        return list(self.root.glob(f"mlruns/studies/*/trial-{number}/checkpoints-*/*/{STATE_FILE}"))

    def tree(self) -> dict[str, bytes]:
        """Return the content of every file in the working tree, without those of git, DVC and MLflow."""
        files = (path for path in self.root.rglob("*") if path.is_file())
        inside = ((path.relative_to(self.root), path) for path in files)
        skipped = {".git", ".dvc", "mlruns", "__pycache__"}
        return {str(name): path.read_bytes() for name, path in inside if not skipped & set(name.parts)}


def wait_for(look: Callable[[], Seen], process: subprocess.Popen[bytes]) -> Seen:
    """Poll `look` until it returns a true value while a process of `Project.start` runs; return it.

    Raises:
        AssertionError: The process ended or the time limit passed before; the process is killed.
    """
    deadline = time.monotonic() + PATIENCE_S
    try:
        while not (seen := look()):
            assert process.poll() is None, f"the process ended before: {process.returncode}"
            assert time.monotonic() < deadline, "the time limit passed before"
            time.sleep(0.001)
    except AssertionError:
        kill(process)
        raise
    return seen


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the process group of a process that `Project.start` returned."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(PATIENCE_S)


def clone(folder: Path, changes: Mapping[str, Any] = SMALL) -> Project:
    """Copy what git tracks or would track into a new repository, with changed parameters."""
    copy_repository(folder, changes)
    return Project(folder)

"""One repository under test: how its pipeline is started, observed and killed, and its result."""

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import psutil
from mlflow import MlflowClient
from ruamel.yaml import YAML

from bench.small import inherited
from sentiment import paths
from sentiment.tuning.storage import open_journal

PATIENCE_S = 600.0
"""A whole run of the small cut takes under a minute alone, and much longer on a busy machine."""

REPRO = ("dvc", "repro")
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "CHECKPOINT_MINUTES": "0.01", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
"""One thread, so that two concurrent cases do not slow each other and all sums round equally."""

STORED = ("validation.auc", "test.auc")
"""Metrics of a run that must not differ."""


@dataclass
class Faulted:
    """A repository in its own folder, and a log of events."""

    root: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    """Of every command, beside `ENVIRONMENT`."""
    log: list[str] = field(default_factory=list)
    tracking_uri: str | None = None
    """None: the sqlite store in the repository."""
    status: int | None = None
    """Exit status of the last command with a fault; None: it did not end."""
    experiment: str = "sentiment"

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a command in its own process group; its output goes to a file below `.git`."""
        output = (self.root / ".git" / "output").open("wb")
        with output:
            return subprocess.Popen(
                command,
                cwd=self.root,
                env={**inherited(), **ENVIRONMENT, **self.environment},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def run(self, *command: str) -> int:
        """Run a command to its end, note its output and return its status."""
        process = self.start(*command)
        try:
            return self.ended(process, " ".join(command))
        finally:
            kill(process)

    def ended(self, process: subprocess.Popen[bytes], what: str) -> int:
        """Wait for a process that `start` returned, note its output and return its status."""
        status = process.wait(PATIENCE_S)
        self.note(what, status)
        return status

    def note(self, what: str, status: int | str) -> None:
        """Add an event and the output of the last command to the log."""
        self.log.append(f"## {what}: {status}\n{self.output()}")

    def output(self) -> str:
        """Return what the last command printed."""
        return (self.root / ".git" / "output").read_text(errors="replace")

    def outputs(self, stage: str | None = None) -> list[Path]:
        """Return the outputs and metrics of a stage in dvc.yaml, outputs first; None: of all stages."""
        stages = YAML(typ="safe").load(self.root / "dvc.yaml")["stages"]
        chosen = stages.values() if stage is None else [stages[stage]]
        named = [entry for one in chosen for kind in ("outs", "metrics") for entry in one.get(kind, ())]
        return [Path(entry if isinstance(entry, str) else next(iter(entry))) for entry in named]

    def stages(self) -> list[str]:
        """Return the stages in the order of dvc.yaml, in which they run."""
        return [str(name) for name in YAML(typ="safe").load(self.root / "dvc.yaml")["stages"]]

    def stage_process(self, process: subprocess.Popen[bytes], stage: str) -> psutil.Process | None:
        """Return the process that runs a stage below one that `start` returned, or None."""
        for child in _children(process.pid):
            with suppress(psutil.Error):
                if child.cmdline()[1:3] == ["-m", f"stages.{stage}"]:
                    return child
        return None

    def files(self) -> dict[str, bytes]:
        """Return dvc.lock and all outputs, and all other files in their folders, with their content."""
        folders = {path.parent for path in self.outputs()}
        found = {path for folder in folders for path in (self.root / folder).rglob("*") if path.is_file()}
        found.add(self.root / "dvc.lock")
        return {str(path.relative_to(self.root)): path.read_bytes() for path in sorted(found)}

    def study(self) -> list[tuple[Any, ...]]:
        """Return the trials of the only study, without times. Raises KeyError if there are several."""
        storage = open_journal(self.root / paths.JOURNAL)
        study = optuna.load_study(study_name=None, storage=storage)
        return [
            (trial.number, trial.state.name, trial.params, trial.values, trial.intermediate_values)
            for trial in study.trials
        ]

    def runs(self) -> Counter[tuple[object, ...]]:
        """Count the runs of the store by what must be equal: stage, name, trial, status and metrics."""
        client = MlflowClient(self.tracking_uri or f"sqlite:///{self.root}/mlruns/mlflow.db")
        experiment = client.get_experiment_by_name(self.experiment)
        if experiment is None:
            return Counter()
        found: Counter[tuple[object, ...]] = Counter()
        for run in client.search_runs([experiment.experiment_id]):
            history = client.get_metric_history(run.info.run_id, "validation_auc")
            tags = run.data.tags
            found[
                (
                    tags.get("stage"),
                    "from cache" in run.info.run_name,
                    tags.get("tune.trial"),
                    run.info.status,
                    *(run.data.metrics.get(name) for name in STORED),
                    tuple(metric.step for metric in history),
                )
            ] += 1
        models = client.search_logged_models([experiment.experiment_id])
        found.update(("model", model.name, str(model.status)) for model in models)
        return found


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process group that `Faulted.start` started, if it still runs."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(PATIENCE_S)


def _children(pid: int) -> list[psutil.Process]:
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def polled(process: subprocess.Popen[bytes], seconds: float) -> Iterator[None]:
    """Yield repeatedly, with a pause in seconds in between, while a process runs."""
    deadline = time.monotonic() + PATIENCE_S
    while process.poll() is None and time.monotonic() < deadline:
        yield
        time.sleep(seconds)

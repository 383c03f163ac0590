"""A folder in which the stage tune runs as it does in the repository, on fewer reviews."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import optuna
from mlflow import MlflowClient
from mlflow.entities import Run
from optuna.trial import FrozenTrial
from ruamel.yaml import YAML

from bench.training.task import taken
from sentiment import paths
from sentiment.tokens.batches import TrainingData
from sentiment.tokens.token_store import TokenizedReviews
from sentiment.tuning.storage import open_journal

REPOSITORY = Path(__file__).parents[2]
LOG = "tune.log"
FEW_STEPS = {"train.schedule.warmup_steps": 5}
"""On fewer reviews, a run is shorter than the warm-up of the default one."""
INTERRUPTED = 130
"""Exit status of a stage after SIGINT."""
POLL_SECONDS = 0.2
RESULTS = ("reports", "models/tuned", "metrics/tune.json")
"""Files and folders that the stage tune writes."""
PLACES = ("DVC_", "MLFLOW_", "RAY_", "TUNE_")
"""Prefixes of variables that set where the pipeline runs: the measured one runs in its own folder."""


@dataclass(frozen=True)
class SearchProject:
    """A folder with parameters and tokens, in which searches run."""

    root: Path

    @classmethod
    def made(cls, root: Path, reviews: int | None, changes: Mapping[str, Any]) -> Self:
        """Take the repository's parameters with some changes, and at most `reviews` reviews of each split.

        None takes all of them.
        """
        opened = TrainingData.open()
        rng = np.random.default_rng(0)
        for split, tokens in opened.select_splits(unlabelled=False).items():
            taken(tokens, rng.permutation(len(tokens))[:reviews]).save(root / paths.tokens(split))
        TokenizedReviews.from_lists([], []).save(root / paths.tokens("unlabelled"))
        shutil.copyfile(paths.TOKENIZER, root / paths.TOKENIZER)
        yaml = YAML()
        content = yaml.load(paths.PARAMS)
        for name, value in {**FEW_STEPS, **changes}.items():
            *sections, key = name.split(".")
            holder = content
            for section in sections:
                holder = holder[section]
            holder[key] = value
        yaml.dump(content, root / paths.PARAMS)
        for path in (paths.PIPELINE, paths.ENVIRONMENT):  # runs record the packages that the stage declares
            shutil.copyfile(path, root / path)
        return cls(root)

    def copy(self, root: Path) -> Self:
        """Return one with the same parameters and tokens, before its first search."""
        left_out = shutil.ignore_patterns("mlruns", "models", "metrics", "reports", LOG)
        shutil.copytree(self.root, root, ignore=left_out)
        return type(self)(root)

    def start(self, workers: int | None, **environment: str) -> subprocess.Popen[bytes]:
        """Start the stage in its own process group.

        Args:
            workers: value of TUNE_WORKERS; None sets none.
            environment: other variables.
        """
        kept = {name: value for name, value in os.environ.items() if not name.startswith(PLACES)}
        if workers is not None:
            environment["TUNE_WORKERS"] = str(workers)
        modules = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "src")])
        with (self.root / LOG).open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "stages.tune"],
                cwd=self.root,
                env={**kept, "PYTHONPATH": modules, **environment},
                stderr=log,
                start_new_session=True,
            )

    def finish(self, workers: int | None, **environment: str) -> None:
        """Run the stage to its end. Raises RuntimeError if it fails."""
        self.require_success(self.start(workers, **environment))

    def require_success(self, process: subprocess.Popen[bytes]) -> None:
        """Wait for a started stage. Raises RuntimeError if it fails."""
        self._require_status(process.wait(), 0)

    def kill(self, workers: int, seconds: float, reports: float) -> bool:
        """Start the stage and kill its process group.

        Args:
            workers: number of workers.
            seconds: latest time of the kill after the start.
            reports: number of reports (`count_reports`) at which the stage is killed earlier.

        Returns:
            Whether the stage was killed; False if it ended before.

        Raises:
            RuntimeError: the stage failed.
        """
        process, deadline = self.start(workers), time.monotonic() + seconds
        while process.poll() is None and time.monotonic() < deadline and self.count_reports() < reports:
            time.sleep(POLL_SECONDS)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        status = process.wait()
        if status != -signal.SIGKILL:
            self._require_status(status, 0)
        return status == -signal.SIGKILL

    def interrupt(self, workers: int, trials: int) -> None:
        """Start the stage and interrupt it, as Ctrl-C does, once some trials of the study have ended.

        Raises RuntimeError if it ends before, or with another status than that of an interrupted stage.
        """
        # A shell makes what it starts in the background ignore SIGINT, which the stage would inherit.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        process = self.start(workers)
        while process.poll() is None and self._count_ended_trials() < trials:
            time.sleep(POLL_SECONDS)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
        self._require_status(process.wait(), INTERRUPTED)

    def _require_status(self, status: int, expected: int) -> None:
        if status != expected:
            output = (self.root / LOG).read_text().splitlines()
            raise RuntimeError(f"stages.tune in {self.root}: status {status}: {output[-1:]}")

    def count_reports(self) -> int:
        """Return the number of intermediate values and of ended trials in the study."""
        trials = self._load_trials()
        return sum(len(trial.intermediate_values) + trial.state.is_finished() for trial in trials)

    def _count_ended_trials(self) -> int:
        return sum(trial.state.is_finished() for trial in self._load_trials())

    def _load_trials(self) -> list[FrozenTrial]:
        """Return the trials of the only study; none if there is no study yet."""
        if not (self.root / paths.JOURNAL).is_file():
            return []
        storage = open_journal(self.root / paths.JOURNAL)
        names = optuna.get_all_study_names(storage)
        return optuna.load_study(study_name=names[0], storage=storage).trials if names else []

    def results(self) -> dict[str, bytes]:
        """Return the content of each file that the stage has written, by path."""
        found = [self.root / name for name in RESULTS]
        files = [file for path in found for file in (path, *path.rglob("*")) if file.is_file()]
        return {str(file.relative_to(self.root)): file.read_bytes() for file in sorted(files)}

    def study(self) -> optuna.Study:
        """Return the only study."""
        storage = open_journal(self.root / paths.JOURNAL)
        return optuna.load_study(study_name=None, storage=storage)

    def runs(self) -> list[Run]:
        """Return what was logged."""
        client = MlflowClient(f"sqlite:///{self.root}/mlruns/mlflow.db")
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        return list(client.search_runs(experiments))

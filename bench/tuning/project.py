"""A folder in which the stage tune runs as it does in the repository, on fewer reviews."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import mlflow
import numpy as np
import optuna
from mlflow import MlflowClient
from mlflow.entities import Run
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
PLACES = ("DVC_", "MLFLOW_", "TUNE_")
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
        return cls(root)

    def copy(self, root: Path) -> Self:
        """Return one with the same parameters and tokens, before its first search."""
        shutil.copytree(self.root, root, ignore=shutil.ignore_patterns("mlruns", "models"))
        return type(self)(root)

    def start(self, workers: int) -> subprocess.Popen[bytes]:
        """Start the stage in its own process group."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(PLACES)}
        with (self.root / LOG).open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "stages.tune"],
                cwd=self.root,
                env={**kept, "PYTHONPATH": str(REPOSITORY), "TUNE_WORKERS": str(workers)},
                stderr=log,
                start_new_session=True,
            )

    def finish(self, workers: int) -> None:
        """Run the stage to its end. Raises RuntimeError if it fails."""
        status = self.start(workers).wait()
        if status:
            output = (self.root / LOG).read_text().splitlines()
            raise RuntimeError(f"stages.tune in {self.root}: status {status}: {output[-1:]}")

    def study(self) -> optuna.Study:
        """Return the only study."""
        storage = open_journal(self.root / paths.JOURNAL)
        return optuna.load_study(study_name=None, storage=storage)

    def runs(self) -> list[Run]:
        """Return what was logged."""
        mlflow.set_tracking_uri(f"sqlite:///{self.root}/mlruns/mlflow.db")
        client = MlflowClient()
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        return list(client.search_runs(experiments))

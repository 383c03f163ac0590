"""A small project with a champion, and batches of new reviews for it."""

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from bench.retrain.cycle import EASY
from sentiment.data.imdb import load_package_reviews
from tests.data.source_files import write_rows
from tests.project import Project


@dataclass(frozen=True)
class RetrainingProject:
    """A project in which `sentiment retrain` runs."""

    project: Project

    @property
    def root(self) -> Path:
        return self.project.root

    def copy(self, folder: Path) -> "RetrainingProject":
        """Copy the project without its MLflow store."""
        shutil.copytree(self.root, folder, symlinks=True, ignore=shutil.ignore_patterns("mlruns"))
        return RetrainingProject(Project(folder))

    def retrain(self, status: int = 0, *options: str) -> subprocess.CompletedProcess[str]:
        """Run a retraining; return the process."""
        return self.project.run("sentiment", "retrain", *options, status=status)

    @property
    def result(self) -> dict[str, Any]:
        """The result of the last retraining."""
        return dict(json.loads((self.root / "reports/retrain.json").read_text()))

    @property
    def report(self) -> str:
        """The report of the last retraining."""
        return (self.root / "reports/retrain.md").read_text()

    @property
    def ledger(self) -> list[dict[str, Any]]:
        """The lines of the local branch `ledger`."""
        shown = self.project.run("git", "show", "ledger:decisions.jsonl", status=None)
        return [json.loads(line) for line in shown.stdout.splitlines()]

    @property
    def champion(self) -> dict[str, Any]:
        """What `sentiment champion --json` prints."""
        return dict(json.loads(self.project.run("sentiment", "champion", "--json").stdout))

    def add_batch(self, rows: Sequence[Mapping[str, Any]], name: str = "batch.csv") -> None:
        """Put rows into data/incoming and commit them."""
        write_rows(self.root / "data/incoming" / name, rows)
        self.project.commit(f"add {name}")


def promote_first(reproduced: Project, folder: Path) -> RetrainingProject:
    """Copy a reproduced project, and promote its model as the first champion."""
    shutil.copytree(reproduced.root, folder, ignore=shutil.ignore_patterns("mlruns"))
    project = Project(folder)
    project.set_params(EASY)
    project.run("dvc", "repro", "--quiet")
    project.commit("parameters of a small project")
    project.run("sentiment", "promote", "--first")
    return RetrainingProject(project)


def take_reviews(start: int, count: int) -> list[dict[str, Any]]:
    """Return real reviews that the small project does not have, half of them positive."""
    package = load_package_reviews().select(["text", "label"])
    half = count // 2
    last = len(package) - start
    return pa.concat_tables([package.slice(start, half), package.slice(last - half, half)]).to_pylist()


def flip(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return rows with the other label."""
    return [{**row, "label": 1 - row["label"]} for row in rows]

"""A forge whose repository has a champion, and what its cycles need."""

import csv
import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bench.small import SMALL
from sentiment.data.imdb import load_package_reviews
from sentiment.data.parquet import sample_reviews, to_batches
from sentiment.retraining.report import TITLES
from sentiment.text import normalize_text
from tests.project import Project, clone
from tests.workflows.forge import Forge, WorkflowRun, hosting

LIMIT = 800
"""Reviews of the package in the small project."""

BATCH = 300
"""Rows of a batch in data/incoming."""

PARAMS: dict[str, Any] = {
    **SMALL,
    "download.limit": LIMIT,
    "tune.trials": 1,
    # A model that trains in seconds passes no behavioural test.
    **{
        f"evaluate.limits.behaviour.{name}": 0.01
        for name in ("minimum_functionality", "negation", "names", "case", "html", "typos", "unusual_inputs")
    },
}

ALARMS = {
    "data_stopped": "Retraining: the new rows were stopped",
    "failed": "Retraining: failed",
    "unpublished": "Retraining: the result could not be published",
}
"""Titles of the issues that the job `alarm` opens."""

Rows = Sequence[tuple[str, int]]
"""Texts and labels."""


@dataclass(frozen=True)
class Site:
    """The forge after the first champion.

    Attributes:
        forge: the forge.
        batches: batches of reviews that the project does not have, half of them positive.
        retrained: the run that proposed the first champion.
        merged: the runs that its merge started.
    """

    forge: Forge
    batches: list[Rows]
    retrained: WorkflowRun
    merged: list[WorkflowRun]

    def colleague(self, folder: Path) -> Project:
        """Return a colleague's clone, with the installed packages."""
        return self.forge.clone(folder)

    @property
    def champion(self) -> str | None:
        """Commit of the champion: that of the assignment with the highest number."""
        names = self.forge.git("tag", "--list", "sentiment#champion#*").split()
        if not names:
            return None
        newest = max(names, key=lambda name: int(name.rpartition("#")[2]))
        return self.forge.git("rev-parse", f"{newest}^{{commit}}")

    @property
    def versions(self) -> list[str]:
        return sorted(self.forge.git("tag", "--list", "sentiment@*").split())

    @property
    def ledger(self) -> list[dict[str, Any]]:
        """Decisions in the branch `ledger`."""
        if not self.forge.git("branch", "--list", "ledger"):
            return []
        lines = self.forge.git("show", "ledger:decisions.jsonl").splitlines()
        return [json.loads(line) for line in lines]

    def retrain(self, **options: Any) -> WorkflowRun:
        return self.forge.run("retrain.yml", **options)


def write_batch(project: Project, name: str, rows: Rows) -> None:
    """Write a file to data/incoming and commit it."""
    path = project.root / "data/incoming" / name
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "label"))
        writer.writerows(rows)
    project.commit(f"{name}: {len(rows)} reviews")


def push_batch(site: Site, folder: Path, rows: Rows, name: str = "second.csv") -> Project:
    """Let a colleague, whose clone goes to the folder, push a new file of reviews."""
    colleague = site.colleague(folder)
    write_batch(colleague, name, rows)
    assert site.forge.push(colleague) == [], "no workflow runs where dvc.lock stays the same"
    return colleague


def read_report(run: WorkflowRun) -> tuple[str, str]:
    """Return the outcome and the reason from the first lines of the report, in a run's summary."""
    title, reason, *_ = [line for line in run.summary.splitlines() if line.strip()]
    outcomes = {f"# Retraining: {title}": outcome for outcome, title in TITLES.items()}
    return outcomes[title], reason


def _choose_batches(count: int) -> list[Rows]:
    """Choose reviews of the package that the small project does not sample."""
    whole = load_package_reviews()
    taken = {
        normalize_text(text)
        for batch in sample_reviews(lambda: to_batches(whole), LIMIT, seed=42)
        for text in batch["text"].to_pylist()
    }
    rows = dict.fromkeys(
        (normalize_text(text), label)
        for text, label in zip(whole["text"].to_pylist(), whole["label"].to_pylist(), strict=True)
        if normalize_text(text) not in taken
    )
    by_label = [[row for row in rows if row[1] == label] for label in (0, 1)]
    half = BATCH // 2
    step = min(map(len, by_label)) // (count + 1)  # far apart, for the source has a film's reviews together
    return [
        [row for group in by_label for row in group[start : start + half * 7 : 7]]
        for start in range(0, count * step, step)
    ]


@pytest.fixture(scope="session")
def _started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Path]]:
    """The site after its first champion, and a copy of its folder."""
    folder = tmp_path_factory.mktemp("forge")
    live, copy = folder / "live", folder / "copy"
    project = clone(folder / "project", PARAMS)
    batches = _choose_batches(4)
    write_batch(project, "first.csv", batches.pop(0))
    with hosting(live, project.root) as forge:
        retrained = forge.run("retrain.yml")
        merged = forge.merge(1) if forge.open_pulls else []
        subprocess.run(["cp", "-a", live, copy], check=True)
        yield Site(forge, batches, retrained, merged), copy


@pytest.fixture
def site(_started: tuple[Site, Path]) -> Site:
    """The site as it was after its first champion, at the same paths, which MLflow's store needs."""
    site, copy = _started
    live = site.forge.folder
    shutil.rmtree(live)
    subprocess.run(["cp", "-a", copy, live], check=True)
    forge = Forge(live, site.forge.server, runs=100)
    return Site(forge, site.batches, site.retrained, site.merged)

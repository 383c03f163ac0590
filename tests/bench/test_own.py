"""Timing of this project's own training."""

from pathlib import Path

import pytest
import torch

from bench.training.own import train_logged
from bench.training.phases import Phases, timed_phases
from bench.training.task import Task
from sentiment.model.classifier import SentimentClassifier
from tests.model.small_model import model_params


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "set again by the training")


def test_training_ends_with_the_epoch_that_reaches_the_target(task: Task, tmp_path: Path) -> None:
    costs = train_logged(task, tmp_path)
    assert [cost.epoch.epoch for cost in costs] == [1, 2]
    assert all(0 < cost.seconds < cost.since_last for cost in costs)
    assert len(train_logged(task, tmp_path, target=costs[0].epoch.validation_auc)) == 1


def test_phases_are_parts_of_an_epoch(task: Task, tmp_path: Path) -> None:
    with timed_phases() as phases:
        costs = train_logged(task, tmp_path)
    assert min(phases.forward, phases.backward, phases.step) > 0
    assert phases.seconds < sum(cost.seconds for cost in costs)


def test_only_training_inside_the_block_is_timed() -> None:
    model, ids, lengths = (
        SentimentClassifier(model_params(), 10),
        torch.ones(2, 3).long(),
        torch.tensor([3, 2]),
    )
    with timed_phases() as phases:
        model.eval()(ids, lengths)
    model.train()(ids, lengths).sum().backward()
    assert phases == Phases()

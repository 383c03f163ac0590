"""A search that goes on past trials that fail, and ends early those that lag behind."""

from collections import Counter

import pandas as pd
import pytest

from tests.project import Project


def _trial_statuses(project: Project) -> Counter[str]:
    runs = project.runs("tags.stage = 'tune'")
    return Counter(run.info.status for run in runs if "mlflow.parentRunId" in run.data.tags)


def test_diverging_trial_is_failed_and_the_search_goes_on(project: Project) -> None:
    rates = {"kind": "categorical", "choices": [0.003, 1e39]}
    project.set_params(
        {"tune.trials": 6, "tune.max_failed": 6, "tune.space": {"train.optimizer.learning_rate": rates}}
    )
    project.stage("tune")
    counts = project.metrics("tune")["trials"]
    assert counts["failed"] > 0
    assert counts["finished"] > 0
    assert sum(counts.values()) == 6
    assert _trial_statuses(project) == Counter(
        FINISHED=counts["finished"], KILLED=counts["pruned"], FAILED=counts["failed"]
    )
    failed = project.runs("tags.stage = 'tune' AND attributes.status = 'FAILED'")
    assert all(
        "is not finite" in run.data.tags["error"] or "loss" in run.data.tags["error"] for run in failed
    )
    table = pd.read_csv(project.root / "reports/tune.csv")
    errors = table["error"].dropna()
    assert list(errors.index) == list(table.index[table["state"] == "failed"])
    assert errors.str.startswith("TrainingDivergedError: epoch 1").all()


def test_trial_without_enough_memory_is_failed_and_the_search_goes_on(project: Project) -> None:
    sizes = {"kind": "categorical", "choices": [8, 10**10]}  # of an embedding of some sixty terabytes
    project.set_params(
        {"tune.trials": 4, "tune.max_failed": 4, "tune.space": {"model.embedding_units": sizes}}
    )
    project.stage("tune")
    counts = project.metrics("tune")["trials"]
    assert counts["failed"] > 0
    assert counts["finished"] > 0
    failed = project.runs("tags.stage = 'tune' AND attributes.status = 'FAILED'")
    assert all("allocate" in run.data.tags["error"] for run in failed)


def test_lagging_trial_is_pruned_after_the_warm_up(project: Project) -> None:
    rates = {"kind": "categorical", "choices": [0.03, 1e-9]}
    project.set_params(
        {
            "download.limit": 2000,  # a few hundred teach too little for one trial to lag behind another
            "tune.trials": 8,
            "train.epochs": 3,
            "train.average": 0.0,
            "model.ngrams": None,  # they are naive Bayes before the first step: no trial would lag behind
            "train.optimizer.learning_rate": 0.03,
            "tune.space": {"train.optimizer.learning_rate": rates},
        }
    )
    for stage in ("download", "tokenize", "tune"):
        project.stage(stage)
    counts = project.metrics("tune")["trials"]
    assert counts["pruned"] > 0
    assert _trial_statuses(project)["KILLED"] == counts["pruned"]
    pruned = project.runs("tags.stage = 'tune' AND attributes.status = 'KILLED'")
    assert all("best_validation_auc" not in run.data.metrics for run in pruned)
    table = pd.read_csv(project.root / "reports/tune.csv")
    share = (table["steps"] / table["planned_steps"])[table["state"] == "pruned"]
    assert share.between(1 / 3, 2 / 3).all()  # one or two epochs of three
    saved = project.metrics("tune")["compute_saved"]
    assert saved == pytest.approx((1 - share).sum() / len(table), abs=1e-6)

"""A search continues after failed trials and prunes trials with low intermediate AUC."""

import re
from collections import Counter
from typing import Any

import pandas as pd
import pytest
from mlflow import MlflowClient

from tests.project import Project


def _trial_statuses(project: Project) -> Counter[str]:
    runs = project.runs("tags.stage = 'tune'")
    return Counter(run.info.status for run in runs if "mlflow.parentRunId" in run.data.tags)


def _counts_of_search(project: Project, changes: dict[str, Any]) -> dict[str, int]:
    """Search with some parameters changed; return the numbers of finished, pruned and failed trials."""
    project.set_params(changes)
    project.stage("tune")
    counts: dict[str, int] = project.metrics("tune")["trials"]
    return counts


def test_search_continues_after_a_diverging_trial(project: Project) -> None:
    rates = {"kind": "categorical", "choices": [0.003, 1e39]}
    space = {"train.optimizer.learning_rate": rates}
    counts = _counts_of_search(project, {"tune.trials": 6, "tune.max_failed": 6, "tune.space": space})
    assert counts["failed"] > 0
    assert counts["finished"] > 0
    assert sum(counts.values()) == 6
    assert _trial_statuses(project) == Counter(
        FINISHED=counts["finished"], KILLED=counts["pruned"], FAILED=counts["failed"]
    )
    failed = project.runs("tags.stage = 'tune' AND attributes.status = 'FAILED'")
    assert all("not finite" in run.data.tags["error"] or "loss" in run.data.tags["error"] for run in failed)
    table = pd.read_csv(project.root / "reports/tune.csv")
    errors = table["error"].dropna()
    assert list(errors.index) == list(table.index[table["state"] == "failed"])
    assert errors.str.match(r"TrainingDivergedError: .*epoch 1").all()


def test_search_stops_after_three_attempts_at_a_trial_without_enough_memory(project: Project) -> None:
    sizes = {"kind": "categorical", "choices": [8, 10**10]}  # of an embedding of some sixty terabytes
    project.set_params({"tune.trials": 6, "tune.space": {"model.embedding_dim": sizes}})
    output = project.stage("tune", status=2).stderr
    assert output.count("trying again") == 2
    assert re.search(r"error: tune: trial \d could not be completed in 3 attempts; .*allocate", output)
    assert "Traceback" not in output
    (failed,) = project.runs(
        "tags.stage = 'tune' AND tags.`tune.trial` LIKE '%' AND attributes.status = 'FAILED'"
    )
    assert "allocate" in failed.data.tags["error"]


def test_trial_with_low_auc_is_pruned_after_the_warm_up(project: Project) -> None:
    rates = {"kind": "categorical", "choices": [0.03, 1e-9]}
    project.set_params(
        {
            "download.limit": 2000,  # a few hundred teach too little for a difference between trials
            "tune.trials": 8,
            "tune.pruner.warmup": 0.15,
            "train.epochs": 3,
            "train.ema_decay": 0.0,
            "model.ngrams": None,  # they are naive Bayes before the first step: no trial would be pruned
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
    assert all("validation.auc" not in run.data.metrics for run in pruned)
    table = pd.read_csv(project.root / "reports/tune.csv")
    share = (table["optimizer_steps"] / table["planned_optimizer_steps"])[table["state"] == "pruned"]
    assert ((share >= 0.15) & (share < 1)).all()
    saved = project.metrics("tune")["compute_saved"]
    assert saved == pytest.approx((1 - share).sum() / len(table), abs=1e-6)


SPACE = {
    "train.optimizer.learning_rate": {"kind": "float", "low": 1e-3, "high": 3e-2, "log": True, "points": 2},
    "train.clip.kind": {"kind": "categorical", "choices": ["none", "norm"]},
    "train.clip.threshold": {"kind": "float", "low": 0.5, "high": 2.0, "points": 2},
}


def _trials(project: Project) -> pd.DataFrame:
    return pd.read_csv(project.root / "reports/tune.csv")


def test_winner_has_the_highest_validation_auc(project: Project) -> None:
    project.set_params({"tune.pruner": {"kind": "none"}})
    project.stage("tune")
    project.stage("evaluate")
    best = project.metrics("tune")["best"]
    aucs = _trials(project).set_index("trial")["validation_auc"]
    assert best["trial"] == aucs.idxmax()
    assert best["validation_auc"] == pytest.approx(aucs.max(), abs=1e-6)
    tuned = project.metrics("evaluate")["models"]["tuned"]
    assert tuned["validation"]["auc"] == pytest.approx(best["validation_auc"], abs=1e-6)


@pytest.mark.parametrize(
    "changes",
    [
        {"tune.sampler": {"kind": "gp", "startup_trials": 1}, "tune.pruner": {"kind": "none"}},
        {
            "tune.sampler": {"kind": "random"},
            "tune.pruner": {"kind": "hyperband", "reduction_factor": 2, "min_resource": 1},
        },
    ],
    ids=["gp", "hyperband"],
)
def test_search_with_other_samplers_and_pruners_is_reproducible(
    changes: dict[str, Any], project: Project
) -> None:
    project.set_params({**changes, "tune.trials": 4, "tune.space": SPACE, "tune.evaluations_per_epoch": 2})
    project.stage("tune")
    first = project.tree()
    project.stage("tune")
    again = project.tree()
    for name in ("reports/tune.csv", "metrics/tune.json", "models/tuned/model.safetensors"):
        assert first[name] == again[name], name


def test_grid_is_searched_completely(project: Project) -> None:
    project.set_params({"tune.sampler": {"kind": "grid"}, "tune.trials": 20, "tune.space": SPACE})
    project.stage("tune")
    trials = _trials(project)
    assert len(trials) == 1 + 2 * (1 + 2)
    assert not trials[list(SPACE)].duplicated().any()


def test_reopened_search_is_tagged_with_the_parameters_of_its_winner_alone(project: Project) -> None:
    """The test sets the tag of an older winner, which was drawn with another kind of clipping."""
    project.set_params({"tune.trials": 1})
    project.stage("tune")
    (parent,) = project.runs("attributes.run_name LIKE 'tune %'")
    MlflowClient().set_tag(parent.info.run_id, "best.train.clip.percentile", "10.0")
    project.set_params({"tune.trials": 2})
    project.stage("tune")
    (reopened,) = project.runs("attributes.run_name LIKE 'tune %'")
    tags = {name: value for name, value in reopened.data.tags.items() if name.startswith("best.")}
    best = project.metrics("tune")["best"]["params"]
    assert tags == {f"best.{name}": str(value) for name, value in best.items()}


def test_warm_start_without_the_older_study_stops_before_the_first_trial(project: Project) -> None:
    project.set_params({"tune.warm_start": {"study": "tune-of-last-year", "trials": 2}})
    failed = project.stage("tune", status=2)
    assert "tune.warm_start.study: tune-of-last-year: no such study in the storage" in failed.stderr
    assert "Traceback" not in failed.stderr

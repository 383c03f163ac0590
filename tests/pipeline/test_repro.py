"""The pipeline as DVC runs it."""

import json
import shutil

import pandas as pd
import pytest
from ruamel.yaml import YAML

from tests.project import Project

STAGES = ("download", "tokenize", "train", "tune", "evaluate")


def test_one_repro_writes_every_metric_and_model(reproduced: Project) -> None:
    assert all(reproduced.metrics(stage) for stage in STAGES)
    evaluate = reproduced.metrics("evaluate")
    assert evaluate["selected"] in {"baseline", "tuned"}
    assert evaluate["validation"] == evaluate["models"][evaluate["selected"]]["validation"]
    assert 0 <= evaluate["test"]["auc"] <= 1
    selected = {path.name for path in (reproduced.root / "models/selected").iterdir()}
    assert selected == {"model.safetensors", "config.json", "tokenizer.json", "seen_texts.npy"}


def test_second_repro_runs_nothing(reproduced: Project) -> None:
    before = reproduced.tree()
    output = reproduced.run("dvc", "repro").stdout
    assert "Running stage" not in output
    assert reproduced.tree() == before


def test_forced_repro_is_equal_bit_for_bit(project: Project) -> None:
    before = project.tree()
    output = project.run("dvc", "repro", "--force").stdout
    assert all(f"Running stage '{stage}'" in output for stage in STAGES)
    assert project.tree() == before  # dvc.lock, metrics, plots and both models among them


def test_tuned_trial_zero_is_the_baseline(reproduced: Project) -> None:
    """Same configuration, same seed, other process: the same metrics to the last digit."""
    rows = (reproduced.root / "reports/tune.csv").read_text().splitlines()
    first = dict(zip(rows[0].split(","), rows[1].split(","), strict=True))
    assert float(first["validation_auc"]) == reproduced.metrics("train")["best"]["validation_auc"]


def test_evaluate_scores_validation_as_training_did(reproduced: Project) -> None:
    models = reproduced.metrics("evaluate")["models"]
    assert models["baseline"]["validation"]["auc"] == reproduced.metrics("train")["best"]["validation_auc"]
    assert models["tuned"]["validation"]["auc"] == reproduced.metrics("tune")["best"]["validation_auc"]


def test_trial_counts_add_up_to_the_total(reproduced: Project) -> None:
    assert sum(reproduced.metrics("tune")["trials"].values()) == 3


def test_gain_over_trial_zero_is_reported_with_its_interval(reproduced: Project) -> None:
    gain = reproduced.metrics("tune")["gain_over_trial_0"]
    rows = pd.read_csv(reproduced.root / "reports/tune.csv").set_index("trial")["validation_auc"]
    best = reproduced.metrics("tune")["best"]
    assert gain["auc"] == pytest.approx(best["validation_auc"] - rows[0], abs=2e-6)
    assert gain["interval"]["low"] <= gain["auc"] <= gain["interval"]["high"]
    assert (gain["interval"]["low"] < gain["interval"]["high"]) == (best["trial"] != 0)


def test_changed_clipping_leaves_data_stages_alone(project: Project) -> None:
    project.set_params({"train.clip.threshold": 0.7})
    output = project.run("dvc", "repro", "--dry").stdout
    assert "Running stage 'train'" in output
    assert "Running stage 'tune'" in output
    assert "Running stage 'download'" not in output
    assert "Running stage 'tokenize'" not in output


def test_learning_stages_run_without_the_test_and_the_holdout_split(project: Project) -> None:
    """Only evaluate opens them: without them, the other stages write the same outputs."""
    before = project.tree()
    (project.root / "data/reviews/test.parquet").unlink()
    project.stage("tokenize")
    (project.root / "data/reviews/holdout.parquet").unlink()
    shutil.rmtree(project.root / "data/tokens/holdout")
    for stage in ("train", "tune"):
        project.stage(stage)
    unread = ("data/reviews/test.parquet", "data/reviews/holdout.parquet", "data/tokens/holdout/")
    assert project.tree() == {
        name: content for name, content in before.items() if not name.startswith(unread)
    }
    failed = project.stage("evaluate", status=2)
    assert "data/reviews/holdout.parquet: no such file" in failed.stderr


def test_locked_model_hash_is_the_run_tag(reproduced: Project) -> None:
    lock = YAML(typ="safe").load(reproduced.root / "dvc.lock")
    for stage, folder in (("train", "baseline"), ("tune", "tuned")):
        path = f"models/{folder}/model.safetensors"
        digest = next(out["md5"] for out in lock["stages"][stage]["outs"] if out["path"] == path)
        found = reproduced.runs(f"tags.`model.md5` = '{digest}' AND tags.stage = '{stage}'")
        assert len(found) == 1
        assert "test.auc" in found[0].data.metrics


def test_dvc_shows_metrics_plots_and_differences(project: Project) -> None:
    assert "test.auc" in project.run("dvc", "metrics", "show").stdout
    project.set_params({"train.clip.threshold": 0.7})
    difference = json.loads(project.run("dvc", "params", "diff", "--json").stdout)
    threshold = difference["params.yaml"]["train.clip.threshold"]
    assert (threshold["old"], threshold["new"]) == (1.0, 0.7)
    page = project.run("dvc", "plots", "show", "-o", "page").stdout.strip()
    content = (project.root / "page" / "index.html").read_text()
    assert page.endswith("index.html")
    assert "DVC_METRIC" not in content  # every anchor of the templates is filled
    for title in (
        "ROC on test",
        "Loss by epoch",
        "Gradient norm by layer",
        "Trials of the search",
        "Intermediate evaluations of trials",
        "Parallel coordinates of trials",
        "AUC by clipping",
        "Confusion",
    ):
        assert title in content


def test_predict_scores_text_on_the_command_line(reproduced: Project) -> None:
    printed = reproduced.run("sentiment", "predict", "A fine film.", "A waste of time.").stdout.splitlines()
    assert [line.split("\t")[1] for line in printed] == ["A fine film.", "A waste of time."]
    assert all(0 <= float(line.split("\t")[0]) <= 1 for line in printed)


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_is_declared(stage: str, reproduced: Project) -> None:
    declared = YAML(typ="safe").load(reproduced.root / "dvc.yaml")["stages"]
    assert declared[stage]["cmd"] == f"python -m stages.{stage}"

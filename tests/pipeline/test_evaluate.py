"""The stage evaluate on a reproduced project, and `sentiment compare`."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from sentiment.data.deduplication import compute_fingerprints
from sentiment.data.parquet import read_reviews
from sentiment.intervals import compute_wilson_interval
from sentiment.model.model_config import load_config
from sentiment.model.model_files import load_seen_texts
from tests.project import Project

MODELS = ("baseline", "tuned", "reference")
SPLITS = ("validation", "holdout", "test")
METRICS = (
    "auc",
    "average_precision",
    "accuracy",
    "precision",
    "recall",
    "f1",
    "log_loss",
    "brier_score",
    "expected_calibration_error",
)


def test_every_metric_of_every_model_and_split_has_an_interval(reproduced: Project) -> None:
    models = reproduced.metrics("evaluate")["models"]
    assert tuple(models) == MODELS
    for name in MODELS:
        for split in SPLITS:
            metrics = models[name][split]
            for metric in METRICS:
                bounds = metrics["interval"][metric]
                assert bounds["low"] <= metrics[metric] <= bounds["high"], (name, split, metric)


def test_tuned_model_is_selected_only_if_better_on_holdout(reproduced: Project) -> None:
    metrics = reproduced.metrics("evaluate")
    verdict = metrics["comparisons"]["tuned_over_baseline"]["holdout"]["verdict"]
    assert metrics["selected"] == ("tuned" if verdict == "better" else "baseline")
    aucs = {name: metrics["models"][name]["holdout"]["auc"] for name in MODELS}
    difference = metrics["comparisons"]["tuned_over_baseline"]["holdout"]["difference"]
    assert difference == pytest.approx(aucs["tuned"] - aucs["baseline"], abs=2e-6)


def test_metrics_file_mlflow_and_card_have_the_same_numbers(reproduced: Project) -> None:
    metrics = reproduced.metrics("evaluate")
    card = (reproduced.root / "reports/evaluation.md").read_text(encoding="utf-8")
    for stage, name in (("train", "baseline"), ("tune", "tuned")):
        (run,) = reproduced.runs(
            f"tags.stage = '{stage}' and metrics.`test.auc` > 0 and tags.`model.md5` != ''"
        )
        for split in SPLITS:
            for metric in METRICS:
                value = metrics["models"][name][split][metric]
                assert run.data.metrics[f"{split}.{metric}"] == pytest.approx(value), (name, split, metric)
        logged = "mlruns/artifacts", run.info.run_id, "artifacts/evaluate/model_card.md"
        assert reproduced.root.joinpath(*logged).read_text(encoding="utf-8") == card
        comparison = metrics["comparisons"][f"{name}_over_reference"]["holdout"]
        assert run.data.tags["verdict.over_reference"] == comparison["verdict"]
        assert run.data.metrics[f"{name}_over_reference.holdout.auc"] == pytest.approx(
            comparison["difference"]
        )
    for name in MODELS:
        for metric in METRICS:
            assert f"{metrics['models'][name]['test'][metric]:.4f}" in card, (name, metric)
    for by_split in metrics["comparisons"].values():
        for comparison in by_split.values():
            assert f"**{comparison['verdict']}** | {comparison['difference']:+.4f}" in card


def test_behavioural_tests_have_intervals_at_the_confidence_level(project: Project) -> None:
    project.set_params({"evaluate.confidence_level": 0.5})
    project.stage("evaluate")
    for name, result in project.metrics("evaluate")["behaviour"].items():
        interval = compute_wilson_interval(result["passed"], result["cases"], 0.5)
        assert result["interval"] == interval.to_dict(), name


def test_second_evaluation_writes_equal_bytes(project: Project) -> None:
    before = project.tree()
    project.stage("evaluate")
    assert project.tree() == before


def test_selected_model_predicts_calibrated_probabilities(reproduced: Project) -> None:
    metrics = reproduced.metrics("evaluate")
    config = load_config(reproduced.root / "models/selected")
    assert config.calibration.temperature == metrics["temperature"]
    assert config.calibration.threshold == metrics["threshold"]


def test_selected_model_knows_the_texts_it_has_learned_from(reproduced: Project) -> None:
    seen = load_seen_texts(reproduced.root / "models/selected")
    assert seen is not None
    for split in ("train", "validation", "holdout", "test"):
        texts = read_reviews(reproduced.root / f"data/reviews/{split}.parquet")["text"].to_pylist()
        is_seen = np.isin(compute_fingerprints(texts), seen)
        assert is_seen.all() if split in ("train", "validation") else not is_seen.any(), split


def test_linear_reference_is_named_in_capitals_unless_it_is_beaten(reproduced: Project) -> None:
    """The small model is worse than the linear one, or at least not known to be better."""
    metrics = reproduced.metrics("evaluate")
    verdict = metrics["comparisons"][f"{metrics['selected']}_over_reference"]["holdout"]["verdict"]
    card = (reproduced.root / "reports/evaluation.md").read_text(encoding="utf-8")
    assert ("NOT BETTER THAN A LINEAR MODEL" in card) == (verdict != "better")


def test_compare_agrees_with_evaluate(reproduced: Project) -> None:
    output = reproduced.run("sentiment", "compare", "tuned", "baseline", "--json").stdout
    expected = reproduced.metrics("evaluate")["comparisons"]["tuned_over_baseline"]["holdout"]
    compared = json.loads(output)
    assert compared["split"] == "holdout"
    assert compared["left_out"] == 0
    assert compared["verdict"] == expected["verdict"]
    assert compared["difference"] == pytest.approx(expected["difference"], abs=1e-6)


def test_compare_takes_folders_and_revisions(reproduced: Project) -> None:
    folder = str(reproduced.root / "models/selected")
    for model in ("HEAD", folder, "evaluate"):
        line = reproduced.run("sentiment", "compare", model, "selected").stdout
        assert "no worse: equal scores on all" in line, model


def test_compare_leaves_out_reviews_that_a_model_has_learned_from(project: Project, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(project.root / "models/selected", other)
    texts = read_reviews(project.root / "data/reviews/holdout.parquet")["text"].to_pylist()
    np.save(other / "seen_texts.npy", np.unique(compute_fingerprints(texts[:5])))
    compared = json.loads(project.run("sentiment", "compare", str(other), "selected", "--json").stdout)
    assert compared["left_out"] == 5
    assert compared["rows"] == len(texts) - 5

    np.save(other / "seen_texts.npy", np.unique(compute_fingerprints(texts)))
    failed = project.run("sentiment", "compare", str(other), "selected", status=2)
    assert f"0 of the {len(texts)} reviews of the holdout split are new to both" in failed.stderr


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("no-such-thing", "neither a folder with a config.json"),
        ("tuned", "models/tuned does not exist yet"),
        ("HEAD~1", "cannot get models/selected of this revision"),
    ],
)
def test_compare_names_a_model_that_it_cannot_find(project: Project, model: str, message: str) -> None:
    shutil.rmtree(project.root / "models/tuned")
    failed = project.run("sentiment", "compare", model, "selected", status=2)
    assert message in failed.stderr
    assert "Traceback" not in failed.stderr


def test_compare_needs_to_know_what_a_model_has_learned_from(project: Project, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(project.root / "models/selected", other)
    (other / "seen_texts.npy").unlink()
    failed = project.run("sentiment", "compare", str(other), "selected", status=2)
    assert "the model has no seen_texts.npy" in failed.stderr


def test_compare_refuses_a_tokenizer_that_the_models_were_not_trained_with(project: Project) -> None:
    tokenizer = project.root / "data/tokens/tokenizer.json"
    content = tokenizer.read_text(encoding="utf-8")
    tokenizer.unlink()  # DVC may have linked it to its cache
    tokenizer.write_text(content + "\n", encoding="utf-8")
    failed = project.run("sentiment", "compare", "tuned", "baseline", status=2)
    assert "data/tokens/tokenizer.json is not the one in dvc.lock" in failed.stderr


def test_compare_refuses_reviews_that_the_models_were_not_trained_on(project: Project) -> None:
    """The reviews on disk would not say what the models have learned from."""
    project.set_params({"download.seed": 7})
    project.run("dvc", "repro", "download")  # the vocabulary and the models are those of seed 42
    failed = project.run("sentiment", "compare", "tuned", "baseline", status=2)
    assert "tokenize has not run since data/reviews/" in failed.stderr
    assert "`dvc repro` trains it again" in failed.stderr

    project.run("git", "checkout", "-q", "dvc.lock")
    failed = project.run("sentiment", "compare", "tuned", "baseline", status=2)
    assert "data/reviews/train.parquet is not the one in dvc.lock" in failed.stderr
    project.run("dvc", "checkout")
    project.run("sentiment", "compare", "tuned", "baseline")

    (project.root / "dvc.lock").unlink()
    failed = project.run("sentiment", "compare", "tuned", "baseline", status=2)
    assert "dvc.lock does not record tokenize" in failed.stderr


def test_compare_takes_models_that_are_not_committed_yet(project: Project) -> None:
    """The lock of the last commit is not that of the models on disk."""
    project.set_params({"tokenize.vocabulary_size": 1400})
    project.run("dvc", "repro", "tokenize")
    failed = project.run("sentiment", "compare", "tuned", "baseline", status=2)
    assert "tuned: tune has not run since data/tokens/" in failed.stderr
    project.run("dvc", "repro", "train", "tune")
    assert "tuned compared with baseline" in project.run("sentiment", "compare", "tuned", "baseline").stdout


def test_compare_refuses_weights_that_the_lock_does_not_record(project: Project) -> None:
    weights = project.root / "models/tuned/model.safetensors"
    content = weights.read_bytes()
    weights.unlink()  # DVC may have linked it to its cache
    weights.write_bytes(content[:-4] + b"\0\0\x80?")
    failed = project.run("sentiment", "compare", "tuned", "baseline", status=2)
    assert "models/tuned/model.safetensors is not the one in dvc.lock" in failed.stderr

"""The runs and models of the pipeline in a real MLflow store."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from bench.tracking_server import PASSWORD, tracking_server
from sentiment.params import Params
from tests.project import Project

EPOCH_FIGURES = {
    "train_loss",
    "train_accuracy",
    "validation_loss",
    "validation_accuracy",
    "validation_auc",
    "learning_rate",
    "tokens_per_second",
    "gradient_norm_median",
    "gradient_norm_p95",
    "gradient_norm_max",
    "clipping_rate",
    "clipping_scale_mean",
    "gradient_norm_median/embedding",
    "gradient_norm_max/lstm_1_forward",
    "update_ratio/head",
    "gate_saturation/lstm_1_backward_forget",
}


@pytest.fixture(scope="module")
def train_run(reproduced: Project) -> Run:
    (run,) = reproduced.runs("tags.stage = 'train'")
    return run


def test_train_run_has_flat_params(train_run: Run) -> None:
    params = train_run.data.params
    assert params["train.clip.kind"] == "norm"
    assert params["train.clip.threshold"] == "1.0"
    assert params["model.hidden_units"] == "8"
    assert params["train.optimizer.learning_rate"] == "0.003"
    assert params["download.sources.0.kind"] == "package"
    assert params["tune.space.train.clip.threshold.high"] == "4.0"
    assert {name.partition(".")[0] for name in params} == set(Params.model_fields)


def test_train_run_has_every_figure_of_every_epoch(reproduced: Project, train_run: Run) -> None:
    client = MlflowClient(f"sqlite:///{reproduced.root}/mlruns/mlflow.db")
    for name in EPOCH_FIGURES:
        assert [metric.step for metric in client.get_metric_history(train_run.info.run_id, name)] == [1, 2], (
            name
        )


def test_train_run_knows_its_code_data_and_model(reproduced: Project, train_run: Run) -> None:
    tags = train_run.data.tags
    commits = reproduced.run("git", "rev-list", "HEAD").stdout.split()
    assert tags["git.commit"] in commits
    assert tags["git.dirty"] == "true", "no committed dvc.lock names the data"
    assert tags["git.dirty_because"].startswith("data/reviews/train.parquet is not in its dvc.lock; ")
    assert {"params.digest", "data.digest", "model.md5"} <= set(tags)
    assert tags["device"] == "cpu"
    assert tags["precision"] in {"fp32", "bf16"}
    inputs = {given.dataset.name: given.dataset.digest for given in train_run.inputs.dataset_inputs}
    assert set(inputs) == {"reviews-train", "reviews-validation", "reviews-holdout", "reviews-test"}
    assert all(len(digest) == 32 for digest in inputs.values())


def test_every_trial_is_a_run_below_tune(reproduced: Project) -> None:
    runs = reproduced.runs("tags.stage = 'tune'")
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    trials = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert sorted(run.info.run_name for run in trials) == ["trial 0", "trial 1", "trial 2"]
    counts = reproduced.metrics("tune")["trials"]
    statuses = [run.info.status for run in trials]
    assert statuses.count("FINISHED") == counts["finished"]
    assert statuses.count("KILLED") == counts["pruned"]
    assert statuses.count("FAILED") == counts["failed"]
    assert parent.data.tags["best.model.hidden_units"] in {"4", "8"}
    finished = [run for run in trials if run.info.status == "FINISHED"]
    of_trials = {*EPOCH_FIGURES, "best_epoch", "validation.auc"}
    assert all(set(run.data.metrics) >= of_trials for run in finished)


def test_search_run_sums_up_its_trials(reproduced: Project) -> None:
    (search,) = [run for run in reproduced.runs("tags.stage = 'tune'") if "best_trial" in run.data.metrics]
    figures = reproduced.metrics("tune")
    assert search.data.metrics["validation.auc"] == pytest.approx(figures["best"]["validation_auc"], abs=1e-6)
    assert {name: search.data.metrics[f"trials_{name}"] for name in figures["trials"]} == figures["trials"]
    assert search.data.metrics["best_trial"] == figures["best"]["trial"]
    assert search.data.metrics["compute_saved"] == pytest.approx(figures["compute_saved"], abs=1e-6)
    for name, value in figures["best"]["params"].items():
        assert search.data.tags[f"best.{name}"] == str(value)
    page = reproduced.root / f"mlruns/artifacts/{search.info.run_id}/artifacts/tune.html"
    assert '<div id="history"' in page.read_text()


def test_evaluate_completes_the_models_own_runs(reproduced: Project, train_run: Run) -> None:
    figures = reproduced.metrics("evaluate")["models"]["baseline"]
    assert train_run.data.metrics["test.auc"] == pytest.approx(figures["test"]["auc"])
    client = MlflowClient(f"sqlite:///{reproduced.root}/mlruns/mlflow.db")
    images = {file.path for file in client.list_artifacts(train_run.info.run_id, "evaluate")}
    names = ("roc", "precision_recall", "calibration", "confusion", "scores", "slices")
    card = {"evaluate/model_card.md"} if train_run.data.tags["selected"] == "true" else set()
    assert images == {f"evaluate/{name}.png" for name in names} | card


def test_runs_have_the_comparisons_of_their_own_model(reproduced: Project, train_run: Run) -> None:
    comparison = reproduced.metrics("evaluate")["comparisons"]["tuned_over_baseline"]
    (tuned,) = [run for run in reproduced.runs("tags.stage = 'tune'") if "test.auc" in run.data.metrics]
    for split in ("holdout", "test"):
        expected = {"auc": comparison[split]["difference"], **comparison[split]["interval"]}
        for name, value in expected.items():
            assert tuned.data.metrics[f"tuned_over_baseline.{split}.{name}"] == pytest.approx(value)
    assert tuned.data.tags["verdict.over_baseline"] == comparison["holdout"]["verdict"]
    assert not [name for name in train_run.data.metrics if name.startswith("tuned_over")]
    assert "verdict.over_baseline" not in train_run.data.tags


def test_selected_model_scores_raw_text_and_holds_no_pickle(reproduced: Project) -> None:
    """Loaded from the store in a process without the project on its path."""
    (run,) = [run for run in reproduced.runs() if run.data.tags.get("selected") == "true"]
    (output,) = run.outputs.model_outputs
    code = f"""
import mlflow, pandas
mlflow.set_tracking_uri("sqlite:///{reproduced.root}/mlruns/mlflow.db")
model = mlflow.pyfunc.load_model("models:/{output.model_id}")
print(model.metadata.signature.inputs.input_names(), model.metadata.saved_input_example_info is not None)
print(model.predict(pandas.DataFrame({{"text": ["A fine film."]}}))["probability"][0])
"""
    done = reproduced.run("python", "-I", "-c", code).stdout.splitlines()
    assert done[-2] == "['text'] True"
    expected = reproduced.run("sentiment", "predict", "A fine film.").stdout.split("\t")[0]
    assert f"{float(done[-1]):.4f}" == expected
    model = MlflowClient(f"sqlite:///{reproduced.root}/mlruns/mlflow.db").get_logged_model(output.model_id)
    assert model.experiment_id == run.info.experiment_id
    files = [path for path in (reproduced.root / "mlruns/artifacts").rglob("*") if path.is_file()]
    assert any(path.name == "model.safetensors" for path in files)
    assert not [path for path in files if path.suffix in {".pkl", ".pickle", ".pt", ".pth", ".bin"}]


def test_models_are_ranked_by_their_test_auc(reproduced: Project) -> None:
    client = MlflowClient(f"sqlite:///{reproduced.root}/mlruns/mlflow.db")
    experiment = client.get_experiment_by_name("sentiment")
    assert experiment is not None
    ranking = [{"field_name": "metrics.test.auc", "ascending": False}]
    models = client.search_logged_models([experiment.experiment_id], order_by=ranking)
    figures = reproduced.metrics("evaluate")["models"]
    linked = {
        model.name: metric.value
        for model in models
        for metric in model.metrics
        if (metric.key, metric.dataset_name) == ("test.auc", "reviews-test")
    }
    assert linked == {name: pytest.approx(figures[name]["test"]["auc"]) for name in ("baseline", "tuned")}
    assert list(linked.values()) == sorted(linked.values(), reverse=True)


def test_model_from_the_cache_gets_a_run_in_a_new_store(project: Project) -> None:
    assert project.runs() == []  # the copy came without a store, as a fresh clone after `dvc pull`
    project.stage("evaluate")
    runs = project.runs()
    names = sorted(run.info.run_name.partition(" · ")[0] for run in runs)
    assert names == ["train from cache", "tune from cache"]
    assert all("test.auc" in run.data.metrics for run in runs)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a tracking server."""
    with tracking_server(tmp_path / "server") as server:
        yield server.address


@pytest.mark.integration
def test_environment_alone_moves_runs_to_a_server(project: Project, server: str) -> None:
    before = (project.root / "models/baseline/model.safetensors").read_bytes()
    for stage in ("train", "evaluate"):
        done = project.stage(stage, MLFLOW_TRACKING_URI=server)
        assert PASSWORD not in done.stdout + done.stderr
    assert (project.root / "models/baseline/model.safetensors").read_bytes() == before
    assert not (project.root / "mlruns/mlflow.db").exists()
    mlflow.set_tracking_uri(server)
    client = MlflowClient()
    experiment = client.get_experiment_by_name("sentiment")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id], "tags.stage = 'train'")
    assert "test.auc" in run.data.metrics
    assert client.list_artifacts(run.info.run_id, "evaluate")


OPEN = """
import sentiment.tracking as tracking
print("ready", flush=True)
tracking.open_store()
"""


@pytest.mark.parametrize("seconds", [0.5, 1.5, 2.5])
def test_store_is_created_again_after_its_process_was_killed(tmp_path: Path, seconds: float) -> None:
    environment = {**os.environ, "DVC_ROOT": str(tmp_path)}
    environment.pop("MLFLOW_TRACKING_URI", None)
    command = [sys.executable, "-c", OPEN]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as killed:
        assert killed.stdout is not None
        killed.stdout.readline()
        time.sleep(seconds)
        killed.kill()
    opened = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert opened.returncode == 0, opened.stderr
    assert not list((tmp_path / "mlruns").glob(".*.partial*"))


def test_processes_that_open_a_new_store_at_once_share_it(tmp_path: Path) -> None:
    environment = {**os.environ, "DVC_ROOT": str(tmp_path)}
    environment.pop("MLFLOW_TRACKING_URI", None)
    both = [subprocess.Popen([sys.executable, "-c", OPEN], env=environment) for _ in range(2)]
    assert [process.wait(120) for process in both] == [0, 0]

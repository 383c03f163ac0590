"""The provenance of a run is enough to rebuild it; a dirty run is marked."""

from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from ruamel.yaml import YAML

from sentiment.tracking import open_store, reopen_run, start_run
from sentiment.tracking.provenance import log_provenance
from tests.project import Project

SECRET = "s3cret-w0rd"


def _client(project: Project) -> MlflowClient:
    return MlflowClient(f"sqlite:///{project.root}/mlruns/mlflow.db")


def _artifact(project: Project, run: Run, name: str) -> str:
    path = project.root / "mlruns/artifacts" / run.info.run_id / "artifacts" / name
    return path.read_text() if path.exists() else ""


def _only(project: Project, stage: str) -> Run:
    runs = project.runs(f"tags.stage = '{stage}'")
    (run,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    return run


def _locked(project: Project, stage: str) -> dict[str, str]:
    entry = YAML(typ="safe").load(project.root / "dvc.lock")["stages"][stage]
    return {item["path"]: item["md5"] for item in [*entry["deps"], *entry["outs"]]}


@pytest.mark.parametrize("stage", ["train", "tune"])
def test_hashes_of_inputs_are_those_of_dvc(reproduced: Project, stage: str) -> None:
    tags = _only(reproduced, stage).data.tags
    recorded = {
        name.removeprefix("dvc.md5."): md5 for name, md5 in tags.items() if name.startswith("dvc.md5.")
    }
    locked = {**_locked(reproduced, "tokenize"), **_locked(reproduced, stage)}
    assert recorded == {path: md5 for path, md5 in locked.items() if path in recorded}
    reviews = {f"data/reviews/{split}.parquet" for split in ("train", "validation", "unlabelled")}
    assert {*reviews, "data/tokens/train", "data/tokens/tokenizer.json"} <= set(recorded)


@pytest.mark.parametrize("stage", ["train", "tune"])
def test_run_records_packages_processor_and_sources(reproduced: Project, stage: str) -> None:
    run = _only(reproduced, stage)
    names = {"version.python", "version.torch", "version.dvc", "cpu.processor"}
    assert names | {"cpu.aten_capability", "cpu.onednn_isa"} <= set(run.data.tags)
    assert "cpu.threads" not in run.data.tags, "the number of threads is a parameter of each stage"
    packages = _artifact(reproduced, run, "packages.txt")
    assert "\ntorch==" in packages
    assert "\nsafetensors==" in packages
    sources = reproduced.root / "metrics/download.json"
    assert _artifact(reproduced, run, "download.json") == sources.read_text()
    assert "vocabulary_size: 1500" in _artifact(reproduced, run, "params.yaml")


def test_run_on_what_the_commit_names_is_clean(project: Project) -> None:
    project.stage("train")
    run = _only(project, "train")
    assert run.data.tags["git.dirty"] == "false"
    assert "git.dirty_because" not in run.data.tags
    assert not _artifact(project, run, "source.diff")


def test_resumed_run_has_no_difference_of_a_tree_that_is_clean_again(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.root)
    monkeypatch.setenv("DVC_ROOT", str(project.root))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project.root}/mlruns/mlflow.db")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    project.set_params({"train.clip.threshold": 0.7})
    store = open_store()
    with start_run(store, "train", "killed") as run:
        log_provenance(run, "train", [])
    diff = project.root / "mlruns/artifacts" / run.id / "artifacts/source.diff"
    assert "+    threshold: 0.7" in diff.read_text()
    project.run("git", "checkout", "--quiet", "params.yaml")
    resumed = reopen_run(store, run.id)
    assert resumed is not None
    log_provenance(resumed, "train", [])
    assert resumed.tags()["git.dirty"] == "false"
    assert diff.read_text() == ""


def test_run_on_new_data_says_that_the_commit_does_not_name_them(project: Project) -> None:
    """Whatever dvc.lock in the working tree says: inside `dvc repro` it names the new data already."""
    project.set_params({"download.limit": 380})
    project.run("git", "commit", "-qam", "fewer reviews, before any run")
    project.run("dvc", "repro", "train")
    run = _only(project, "train")
    assert run.data.tags["git.dirty"] == "true"
    because = run.data.tags["git.dirty_because"].split("; ")
    assert "data/tokens/train is not in its dvc.lock" in because
    assert not [cause for cause in because if cause.startswith("params.yaml")]
    md5 = _locked(project, "train")["data/tokens/train"]
    assert run.data.tags["dvc.md5.data/tokens/train"] == md5
    difference = _artifact(project, run, "source.diff")
    assert f"+      md5: {md5[:3]}" in difference or "dvc.lock" in difference

    project.commit("its lock")
    project.run("dvc", "repro", "--force", "--single-item", "train")
    assert project.runs("tags.stage = 'train'")[0].data.tags["git.dirty"] == "false"


def test_commit_and_difference_rebuild_a_dirty_tree(project: Project, tmp_path: Path) -> None:
    project.set_params({"train.clip.threshold": 0.7})
    (project.root / "notes.txt").write_text("not in git")
    project.stage("train")
    run = _only(project, "train")
    assert "params.yaml" in run.data.tags["git.dirty_because"]
    difference = _artifact(project, run, "source.diff")
    assert "# untracked, content not recorded: notes.txt" in difference
    project.run("git", "worktree", "add", "--detach", str(tmp_path / "tree"), run.data.tags["git.commit"])
    (tmp_path / "diff").write_text(difference)
    Project(tmp_path / "tree").run("git", "apply", str(tmp_path / "diff"))
    assert (tmp_path / "tree/params.yaml").read_bytes() == (project.root / "params.yaml").read_bytes()


def test_nothing_recorded_holds_a_secret(project: Project) -> None:
    (project.root / ".env").write_text(f"SERVICE_TOKEN={SECRET}-of-env\n")
    sources = [
        {"kind": "package"},
        {
            "kind": "files",
            "name": "far",
            "paths": [
                f"https://user:{SECRET}@host.invalid/a.csv",
                f"https://host.invalid/b.csv?sig={SECRET}",
            ],
            "columns": {"text": "text", "label": "label"},
            "labels": {"0": 0, "1": 1},
        },
    ]
    project.set_params({"download.sources": sources})
    (project.root / "README.md").write_text(f"token {SECRET}-of-env and {SECRET}-of-environment\n")
    project.stage("train", SERVICE_PASSWORD=f"{SECRET}-of-environment")
    run = _only(project, "train")
    files = [path for path in (project.root / "mlruns").rglob("*") if path.is_file()]
    assert any(path.name == "source.diff" for path in files)
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]
    assert "host.invalid/a.csv" in run.data.params["download.sources.1.paths"]


def test_equal_weights_of_other_parameters_do_not_share_a_run(project: Project) -> None:
    """Device auto and cpu make the same model here; the last one trained need not be the one evaluated."""
    project.set_params({"train.device": "auto", "train.precision": "fp32"})
    project.stage("train")
    first = (project.root / "models/baseline/model.safetensors").read_bytes()
    kept = (project.root / "models/baseline/config.json").read_bytes()
    project.set_params({"train.device": "cpu"})
    project.stage("train")
    assert (project.root / "models/baseline/model.safetensors").read_bytes() == first
    assert (project.root / "models/baseline/config.json").read_bytes() != kept
    project.stage("evaluate")
    with_metrics = {run.data.params["train.device"] for run in _evaluated(project)}
    assert with_metrics == {"cpu"}

    project.set_params({"train.device": "auto"})
    (project.root / "models/baseline/config.json").write_bytes(kept)
    project.stage("evaluate")
    assert {run.data.params["train.device"] for run in _evaluated(project)} == {"cpu", "auto"}
    assert len(project.runs("tags.stage = 'train'")) == 2


def _evaluated(project: Project) -> list[Run]:
    return [run for run in project.runs("tags.stage = 'train'") if "test.auc" in run.data.metrics]


def test_run_from_the_cache_names_what_is_known_and_no_commit(project: Project) -> None:
    project.stage("evaluate")
    runs = project.runs()
    assert len(runs) == 2
    for run in runs:
        tags = run.data.tags
        assert not {"git.commit", "mlflow.source.git.commit", "git.dirty"} & set(tags)
        assert tags["git.commit_of_model"] == "unknown"
        assert {"model.md5", "params.digest", "data.digest", "code.digest"} <= set(tags)
        assert tags["evaluate.git.commit"] == project.run("git", "rev-parse", "HEAD").stdout.strip()
        assert run.data.params["model.chunk_tokens"] == "32"
        assert tags["dvc.md5.data/tokens/train"] == _locked(project, "train")["data/tokens/train"]
        for output in run.outputs.model_outputs if run.outputs else ():
            assert "mlflow.source.git.commit" not in _client(project).get_logged_model(output.model_id).tags
    trained = next(run for run in runs if run.data.tags["stage"] == "train")
    assert trained.data.params["train.clip.threshold"] == "1.0"
    project.stage("evaluate")
    assert len(project.runs()) == 2


def test_evaluation_says_by_which_code_and_parameters(project: Project) -> None:
    project.stage("evaluate")
    project.set_params({"evaluate.threshold.value": 0.4})
    project.stage("evaluate")
    for run in project.runs():
        assert run.data.tags["evaluate.threshold.value"] == "0.4"
        assert run.data.tags["evaluate.git.dirty"] == "true"
        assert run.data.tags["evaluate.git.dirty_because"] == "params.yaml"
        locked = _locked(project, "evaluate")["data/reviews/test.parquet"]
        assert run.data.tags["evaluate.dvc.md5.data/reviews/test.parquet"] == locked


def test_model_that_was_deleted_or_lost_its_files_is_logged_again(project: Project) -> None:
    def models() -> list[str]:
        (run,) = [run for run in project.runs() if run.data.tags["selected"] == "true"]
        return [output.model_id for output in run.outputs.model_outputs]

    def is_whole(model_id: str) -> bool:
        files = client.list_logged_model_artifacts(model_id, "artifacts/model")
        return any(file.path.endswith("model.safetensors") for file in files)

    project.stage("evaluate")
    client = _client(project)
    (first,) = models()
    project.stage("evaluate")
    assert models() == [first]
    client.delete_logged_model(first)
    project.stage("evaluate")
    (second,) = set(models()) - {first}
    assert is_whole(second)
    (weights,) = (project.root / "mlruns/artifacts/models" / second).rglob("model.safetensors")
    weights.unlink()
    project.stage("evaluate")
    (third,) = set(models()) - {first, second}
    assert is_whole(third)

"""`sentiment verify` on a reproduced project, whole and with its chain broken in every way."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient

from sentiment.data.deduplication import compute_fingerprints
from sentiment.data.parquet import read_reviews
from sentiment.data.removal import format_key
from sentiment.files import compute_md5
from tests.project import Project

CHECKS = (
    "lock",
    "code",
    "params",
    "environment",
    "data",
    "working tree",
    "installed packages",
    "outputs",
    "model",
    "removed",
    "run",
)

Expected = dict[str, tuple[str, str]]
"""Status and part of the message of the checks that do not agree, by name."""


@pytest.fixture
def verified(reproduced: Project, tmp_path: Path) -> Project:
    """A copy of the reproduced project with its MLflow store."""
    return Project(shutil.copytree(reproduced.root, tmp_path / "project"))


def _verify(project: Project, *arguments: str, status: int, **environment: str) -> dict[str, Any]:
    done = project.run("sentiment", "verify", "--json", *arguments, status=status, **environment)
    return dict(json.loads(done.stdout))


def _checks(result: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {check["name"]: (check["status"], check["message"]) for check in result["checks"]}


def _selected(project: Project) -> tuple[str, str]:
    """Return the selected candidate and the other one."""
    selected = project.metrics("evaluate")["selected"]
    return selected, {"baseline": "tuned", "tuned": "baseline"}[selected]


def _client(project: Project) -> MlflowClient:
    return MlflowClient(f"sqlite:///{project.root}/mlruns/mlflow.db")


def _replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def _run_id(project: Project) -> str:
    """Return the run of the selected model."""
    selected, _ = _selected(project)
    result = _verify(project, f"models/{selected}", status=0)
    return str(_checks(result)["run"][1].split()[1])


def _edit_lock(project: Project) -> Expected:
    selected, _ = _selected(project)
    lines = (project.root / "dvc.lock").read_text().splitlines()
    outs = [n for n, line in enumerate(lines) if line == f"    - path: models/{selected}/model.safetensors"]
    lines[outs[0] + 2] = f"      md5: {'0' * 32}"  # the first one is the stage's output, later ones its uses
    (project.root / "dvc.lock").write_text("\n".join(lines) + "\n")
    return {
        "lock": ("differs", "dvc.lock was edited"),
        "working tree": ("differs", "dvc.lock is not committed"),
        "outputs": ("differs", "and so does DVC's run cache: dvc.lock was edited manually"),
        "run": ("not known", "no run of"),
    }


def _swap_weights(project: Project) -> Expected:
    file = project.root / "models/selected/model.safetensors"
    file.write_bytes(file.read_bytes()[:-4] + b"\0\0\x80?")
    return {
        "outputs": ("differs", "evaluate: models/selected differs from dvc.lock"),
        "model": ("differs", "models/selected/model.safetensors is not equal to"),
    }


def _change_tokenizer(project: Project) -> Expected:
    _replace(project.root / "models/selected/tokenizer.json", '"version"', ' "version"')
    return {
        "outputs": ("differs", "evaluate: models/selected differs from dvc.lock"),
        "model": ("differs", "models/selected/tokenizer.json is not equal to data/tokens/tokenizer.json"),
    }


def _delete_run(project: Project) -> Expected:
    run_id = _run_id(project)
    _client(project).delete_run(run_id)
    return {"run": ("not known", f"was deleted; `mlflow runs restore --run-id {run_id}`")}


def _change_tree(project: Project) -> Expected:
    _replace(project.root / "README.md", "#", "##")
    return {"working tree": ("differs", "README.md is not committed")}


def _add_data(project: Project) -> Expected:
    (project.root / "data/incoming/new.csv").write_text("text,label\nA fine film.,1\n")
    return {
        "data": ("differs", "download: data/incoming differs from dvc.lock"),
        "working tree": ("differs", "data/incoming/new.csv is not committed"),
    }


def _restore_from_cache(project: Project) -> Expected:
    shutil.rmtree(project.root / "mlruns")
    project.run("git", "checkout", "--", ".")
    shutil.rmtree(project.root / "models")
    project.run("dvc", "checkout")
    assert _checks(_verify(project, status=1))["run"] == (
        "not known",
        "there is no MLflow store here, so the run that trained the model is not known",
    )
    code = (
        "from pathlib import Path; from sentiment.lineage import *; "
        "[find_or_create_model_run(open_store(), Path('models') / name, stage) "
        "for name, stage in (('baseline', 'train'), ('tuned', 'tune'))]"
    )
    project.run("python", "-c", code)
    return {"run": ("not known", "was created for a model from DVC's cache")}


def _change_experiment(project: Project) -> Expected:
    with (project.root / ".env").open("a") as file:
        file.write("MLFLOW_EXPERIMENT_NAME=other\n")
    return {"run": ("differs", "is in the MLflow experiment 'sentiment', not in 'other'")}


def _change_torch(project: Project) -> Expected:
    file = project.root / "environment.yaml"
    torch = next(line for line in file.read_text().splitlines() if line.startswith("torch"))
    _replace(file, torch, 'torch: "1.9"')
    return {
        "environment": ("differs", "train: torch is 1.9, in dvc.lock 2."),
        "installed packages": ("differs", "torch: 1.9 is locked, 2."),
        "working tree": ("differs", "environment.yaml is not committed"),
    }


def _delete_output(project: Project) -> Expected:
    (project.root / "plots/train.csv").unlink()
    return {"outputs": ("differs", "train: plots/train.csv is missing, `dvc checkout` restores it")}


def _change_source(project: Project) -> Expected:
    with (project.root / "src/sentiment/model/lstm.py").open("a") as file:
        file.write("# changed\n")
    project.commit("change the code, not the model")
    return {
        "code": ("differs", "train: src/sentiment/model differs from dvc.lock (src/sentiment/model/lstm.py)")
    }


@pytest.mark.parametrize(
    "break_chain",
    [
        _edit_lock,
        _swap_weights,
        _change_tokenizer,
        _delete_run,
        _change_tree,
        _add_data,
        _restore_from_cache,
        _change_experiment,
        _change_torch,
        _delete_output,
        _change_source,
    ],
)
def test_broken_link_is_named(break_chain: Callable[[Project], Expected], verified: Project) -> None:
    expected = break_chain(verified)
    result = _verify(verified, status=1)
    assert not result["agrees"]
    checks = _checks(result)
    assert tuple(checks) == CHECKS
    assert {name: status for name, (status, _) in checks.items() if status != "agrees"} == {
        name: status for name, (status, _) in expected.items()
    }
    for name, (_, message) in expected.items():
        assert message in checks[name][1]


def test_whole_chain_agrees_by_any_name(verified: Project, tmp_path: Path) -> None:
    """The run was trained before the commit that has its lock."""
    assert tuple(_checks(_verify(verified, status=0))) == CHECKS
    _, other = _selected(verified)
    for name in ("HEAD", "models/selected", f"models/{other}", _run_id(verified)):
        assert _verify(verified, name, status=0)["agrees"], name
    exported = shutil.copytree(verified.root / "models/selected", tmp_path / "exported")
    assert _verify(verified, str(exported), status=0)["agrees"]

    revision = verified.run("git", "rev-parse", "HEAD").stdout.strip()
    _replace(verified.root / "params.yaml", "seed: 42", "seed: 43")
    verified.commit("other parameters")
    shutil.rmtree(verified.root / "models")
    printed = verified.run("sentiment", "verify", revision).stdout
    assert printed.endswith(f"{revision}: all checks agree\n")
    assert "differs    params: download: split.seed" not in printed
    checks = _checks(_verify(verified, status=1))
    assert "download: download.seed is 43, in dvc.lock 42" in checks["params"][1]


def test_trial_is_verified_if_it_won_its_search(verified: Project) -> None:
    best = verified.metrics("tune")["best"]["trial"]
    for run in verified.runs("tags.stage = 'tune'"):
        number = run.data.tags.get("tune.trial")
        result = _verify(verified, run.info.run_id, status=int(number != str(best)))
        if number != str(best):
            reason = "trained no model" if number is None else "is a trial that did not win its search"
            assert _checks(result)["run"] == ("not known", f"it {reason}, so no dvc.lock records its model")
    folders = {path.parent for path in verified.root.glob("mlruns/studies/*/trial-*/config.json")}
    assert len(folders) > 1
    for folder in folders:
        won = folder.name == f"trial-{best}"
        result = _verify(verified, str(folder), status=int(not won))
        if not won:
            assert "records a model with these weights" in _checks(result)["model"][1]


def test_lock_edited_in_a_commit_is_named(verified: Project) -> None:
    _edit_lock(verified)
    verified.commit("edit the lock")
    checks = _checks(_verify(verified, status=1))
    assert "dvc.lock was edited manually" in checks["lock"][1]
    assert "dvc.lock was edited manually" in checks["outputs"][1]


def test_equal_models_of_two_runs_agree(verified: Project) -> None:
    verified.run("dvc", "repro", "--force", "--single-item", "train")
    status, message = _checks(_verify(verified, "models/baseline", status=0))["run"]
    assert status == "agrees"
    assert message.endswith("1 other run made an equal model")


def test_shallow_clone_names_the_command_that_fetches_the_rest(verified: Project, tmp_path: Path) -> None:
    first = verified.run("git", "rev-list", "--max-parents=0", "HEAD").stdout.strip()
    verified.run("git", "clone", "-q", "--depth", "1", f"file://{verified.root}", str(tmp_path / "clone"))
    clone = Project(tmp_path / "clone")
    error = clone.run("sentiment", "verify", first, status=2).stderr
    assert "`git fetch --unshallow --tags`" in error
    assert clone.run("sentiment", "verify", "--lock").stdout.endswith("all checks agree\n")


def test_moved_tag_is_named(verified: Project, tmp_path: Path) -> None:
    verified.run("git", "tag", "-a", "v1", "-m", "first")
    verified.run("git", "clone", "-q", "--bare", str(verified.root), str(tmp_path / "origin"))
    verified.run("git", "remote", "add", "origin", str(tmp_path / "origin"))
    assert _checks(_verify(verified, "v1", status=0))["tag"] == (
        "agrees",
        "origin has it at the same commit",
    )
    verified.run("git", "commit", "--allow-empty", "-qm", "second")
    verified.run("git", "tag", "--force", "-a", "v1", "-m", "moved")
    checks = _checks(_verify(verified, "v1", status=1))
    assert checks["tag"][0] == "differs"
    assert "the tag was moved" in checks["tag"][1]


def test_lock_alone_names_stage_and_file_without_cache(verified: Project) -> None:
    for folder in (".dvc/cache", "models", "mlruns", "data/tokens"):
        shutil.rmtree(verified.root / folder)
    verified.run("sentiment", "verify", "--lock")
    _replace(verified.root / "src/sentiment/text.py", '"""', '"""Changed. ')
    _replace(verified.root / "params.yaml", "vocabulary_size: 1500", "vocabulary_size: 1400")
    verified.run("sentiment", "verify", "--lock")  # not committed
    verified.commit("without dvc repro")
    printed = verified.run("sentiment", "verify", "--lock", status=1).stdout
    assert "download: src/sentiment/text.py differs from dvc.lock" in printed
    assert "tokenize: tokenize.vocabulary_size is 1400, in dvc.lock 1500" in printed


def test_changed_declarations_without_a_run_are_named(verified: Project) -> None:
    """A stage that has not run with them has neither read nor written what `dvc.yaml` declares."""
    pipeline = verified.root / "dvc.yaml"
    _replace(pipeline, "      - plots/train.csv\n", "      - plots/train.csv\n      - plots/extra.csv\n")
    stages, evaluate = pipeline.read_text().split("  evaluate:\n")
    pipeline.write_text(
        f"{stages}  evaluate:\n" + evaluate.replace("data/tokens/holdout", "data/tokens/train", 1)
    )
    verified.commit("without dvc repro")
    printed = verified.run("sentiment", "verify", "--lock", status=1).stdout
    for message in (
        "train: dvc.lock lacks the output plots/extra.csv, which dvc.yaml declares",
        "evaluate: dvc.lock lacks the dependency data/tokens/train, which dvc.yaml declares",
        "evaluate: dvc.yaml does not declare the dependency data/tokens/holdout, which dvc.lock has",
    ):
        assert message in printed
    assert _checks(_verify(verified, "HEAD", status=1))["lock"][0] == "differs"
    failed = verified.run("sentiment", "relock", status=2).stderr
    assert "train: dvc.yaml declares another command, other data or other outputs" in failed


def _truncate(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-10])


def _enlarge(folder: Path) -> None:
    with (folder / "model.safetensors").open("ab") as file:
        file.write(b"0" * 100)


def _add_pickle(folder: Path) -> None:
    (folder / "model.pkl").write_bytes(b"cos\nsystem\n(S'touch run'\ntR.")


BAD_FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda folder: (folder / "model.safetensors").unlink(), "no such file"),
    "without tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "no such file"),
    "truncated": (_truncate, "truncated or corrupt"),
    "oversized": (_enlarge, "truncated or corrupt"),
    "large": (lambda folder: (folder / "config.json").write_text(" " * 1_000_001), "too large"),
    "foreign": (lambda folder: (folder / "notes.txt").write_text("x"), "not a file of a model"),
    "pickle": (_add_pickle, "could run code"),
    "shapes": (
        lambda folder: _replace(folder / "config.json", '"hidden_units": 8', '"hidden_units": 4'),
        "incompatible",
    ),
    "huge": (
        lambda folder: _replace(folder / "config.json", '"hidden_units": 8', '"hidden_units": 1000'),
        "incompatible",
    ),
}


@pytest.mark.parametrize("name", ["config.json", "seen_texts.npy"])
def test_changed_calibration_or_seen_texts_are_named(name: str, verified: Project, tmp_path: Path) -> None:
    """They change predictions, and which reviews a comparison leaves out, but not the weights."""
    folder = shutil.copytree(verified.root / "models/selected", tmp_path / "model")
    if name == "config.json":
        config = json.loads((folder / name).read_text())
        config["calibration"]["temperature"] *= 2
        (folder / name).write_text(json.dumps(config))
    else:
        np.save(folder / name, np.empty(0, np.uint64))
    status, message = _checks(_verify(verified, str(folder), status=1))["model"]
    assert status == "differs"
    assert f"{name} is not equal to models/selected/{name}" in message


@pytest.mark.parametrize("name", BAD_FOLDERS)
def test_invalid_model_folder_is_an_error(name: str, reproduced: Project, tmp_path: Path) -> None:
    change, message = BAD_FOLDERS[name]
    candidate = reproduced.root / "models/selected"
    folder = shutil.copytree(candidate, tmp_path / "model")
    if name in {"shapes", "huge"} and '"hidden_units": 8' not in (folder / "config.json").read_text():
        _replace(folder / "config.json", '"hidden_units": 4', '"hidden_units": 8')
    change(folder)
    error = reproduced.run("sentiment", "verify", str(folder), status=2).stderr
    assert error.startswith("error: ")
    assert message in error
    assert "Traceback" not in error
    assert not (reproduced.root / "run").exists()


def test_cache_of_the_users_configuration_is_found(verified: Project, tmp_path: Path) -> None:
    shutil.move(verified.root / ".dvc/cache", tmp_path / "cache")
    (tmp_path / "config").write_text("[cache]\ndir = cache\n")  # relative to the file
    shutil.rmtree(verified.root / "models")
    folders = {name: str(tmp_path) for name in ("DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR")}
    code = "from sentiment.verification.outputs import find_cache; print(find_cache().resolve())"
    for name, folder in folders.items():
        found = verified.run("python", "-c", code, **{name: folder}).stdout.strip()
        assert found == str((tmp_path / "cache").resolve())
    _replace(verified.root / "README.md", "#", "##")
    verified.commit("another commit")
    message = _checks(_verify(verified, "HEAD~1", status=0, **folders))["outputs"][1]
    assert message.endswith("in DVC's cache or in git as in dvc.lock")


@pytest.mark.parametrize("name", ["config.json", "seen_texts.npy"])
def test_corrupt_file_of_a_cached_folder_is_not_trusted(name: str, verified: Project) -> None:
    """The cache has another content under the file's MD5, so the folder's listing is as recorded."""
    content = (verified.root / "models/selected" / name).read_bytes()
    md5 = compute_md5(content)
    cached = verified.root / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
    cached.chmod(0o644)
    cached.write_bytes(content[:-1] + b"?")
    shutil.rmtree(verified.root / "models")
    texts = read_reviews(verified.root / "data/reviews/train.parquet")["text"].to_pylist()
    key = format_key(compute_fingerprints(texts[:1])[0])
    (verified.root / "data/removed.txt").write_text(f"{key}\n")
    verified.commit("list a review that was learned from")
    verified.run("git", "commit", "--allow-empty", "-qm", "another commit")
    done = verified.run("sentiment", "verify", "--json", "HEAD~1", status=1)
    checks = _checks(json.loads(done.stdout))
    assert checks["outputs"][0] == checks["removed"][0] == "not known"
    assert "models/selected" in checks["outputs"][1]
    assert f"{cached.relative_to(verified.root)} is corrupt" in done.stderr


def test_empty_name_and_folder_without_commit_are_errors(reproduced: Project) -> None:
    assert "the name is empty" in reproduced.run("sentiment", "verify", "", status=2).stderr
    error = reproduced.run("sentiment", "verify", "--lock", "models/selected", status=2).stderr
    assert "`sentiment verify models/selected` verifies the model in it" in error


def test_revision_named_as_a_folder_is_verified(verified: Project) -> None:
    """A model folder of the name takes precedence, with a warning."""
    verified.run("git", "branch", "stages")
    assert _verify(verified, "stages", status=0)["subject"] == "stages"
    verified.run("git", "branch", "models/selected")
    done = verified.run("sentiment", "verify", "models/selected")
    assert "names a folder and also a git revision; the folder is used" in done.stderr


@pytest.mark.parametrize("name", ["no-such-branch", "0" * 32, "--output=x"])
def test_unknown_name_is_an_error(name: str, reproduced: Project) -> None:
    error = reproduced.run("sentiment", "verify", "--", name, status=2).stderr
    assert error.startswith(f"error: {name}: neither")


def test_without_git_is_an_error(verified: Project) -> None:
    shutil.rmtree(verified.root / ".git")
    error = verified.run(
        "sentiment", "verify", status=2, GIT_CEILING_DIRECTORIES=str(verified.root.parent)
    ).stderr
    assert error.startswith("error: git cannot read a commit here")

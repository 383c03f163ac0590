"""Commands started in a subfolder, in a repository inside another one, and outside any."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from sentiment.errors import UserError
from sentiment.settings import ROOT_FILES, enter_repository, repository_root
from tests.project import ROOT, Project


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DVC_ROOT", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "TUNE_STORAGE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Restore the working directory after `enter_repository`."""
    monkeypatch.chdir(Path.cwd())
    yield monkeypatch
    monkeypatch.undo()


def _repository(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ROOT_FILES:
        shutil.copyfile(ROOT / name, folder / name)
    return folder


def test_nearest_folder_with_both_files_is_the_root(tmp_path: Path, here: pytest.MonkeyPatch) -> None:
    outer = _repository(tmp_path / "outer")
    inner = _repository(outer / "worktrees" / "inner")
    half = inner / "data" / "half"
    half.mkdir(parents=True)
    (half / "params.yaml").touch()
    for start, root in ((outer, outer), (outer / "worktrees", outer), (inner, inner), (half, inner)):
        here.chdir(start)
        assert repository_root() == root
        enter_repository()
        assert Path.cwd() == root


def test_dvc_root_is_the_repository_and_files_are_read_where_dvc_runs(
    tmp_path: Path, here: pytest.MonkeyPatch
) -> None:
    real, copy = _repository(tmp_path / "real"), _repository(tmp_path / "copy")
    here.setenv("DVC_ROOT", str(real))
    here.chdir(copy)
    enter_repository()
    assert (repository_root(), Path.cwd()) == (real, copy)
    here.chdir(tmp_path)
    enter_repository()
    assert (repository_root(), Path.cwd()) == (real, real)


@pytest.mark.parametrize(
    ("present", "message"),
    [
        ((), "no params.yaml and no dvc.yaml here"),
        (("params.yaml",), "no dvc.yaml here"),
        (("dvc.yaml",), "no params.yaml here"),
    ],
)
def test_missing_root_files_are_named(
    present: tuple[str, ...], message: str, tmp_path: Path, here: pytest.MonkeyPatch
) -> None:
    for name in present:
        (tmp_path / name).touch()
    here.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        enter_repository()


@pytest.mark.slow
@pytest.mark.parametrize("command", ["check", "predict", "ui", "dashboard", "retrain"])
def test_command_outside_a_repository_writes_nothing(command: str, tmp_path: Path) -> None:
    done = Project(tmp_path).run("sentiment", command, status=2)
    assert f"{tmp_path}: not inside a repository of this project" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_check_in_a_subfolder_reads_the_roots_params(tmp_path: Path) -> None:
    root = _repository(tmp_path / "root")
    subfolder = root / "sub" / "folder"
    subfolder.mkdir(parents=True)
    assert "params.yaml: valid" in Project(subfolder).run("sentiment", "check").stdout
    Project(root).set_params({"train.epochs": -1})
    assert "train.epochs" in Project(subfolder).run("sentiment", "check", status=2).stderr


@pytest.mark.slow
def test_model_path_is_relative_to_the_working_directory(tmp_path: Path) -> None:
    root = _repository(tmp_path / "root")
    (root / "sub").mkdir()
    done = Project(root / "sub").run("sentiment", "predict", "--model", "mine", "Fine.", status=2)
    assert f"error: {root}/sub/mine: contains no model" in done.stderr
    done = Project(root / "sub").run("sentiment", "predict", "Fine.", status=2)
    assert "models/selected: contains no model" in done.stderr


@pytest.mark.slow
def test_ui_in_a_subfolder_prints_the_address_of_the_runs_once_it_answers(tmp_path: Path) -> None:
    root = _repository(tmp_path / "root")
    (root / "sub").mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        ["sentiment", "ui", "--port", str(port)],
        cwd=root / "sub",
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        printed = next(line for line in process.stdout if line.startswith("MLflow UI: "))
        address, _, page = printed.split()[2].partition("/#/")
        assert address == f"http://127.0.0.1:{port}"
        query = r"workflowType=machine_learning&viewStateShareKey=(\w+)"
        match = re.fullmatch(rf"experiments/(\d+)/runs\?{query}", page)
        assert match is not None
        # Without a retry: the server answers once the address is printed.
        query = f"{address}/api/2.0/mlflow/experiments/get?experiment_id={match[1]}"
        with urllib.request.urlopen(query, timeout=30) as answer:
            experiment = json.load(answer)["experiment"]
        assert experiment["name"] == "sentiment"
        tags = {tag["key"]: tag["value"] for tag in experiment["tags"]}
        assert tags["mlflow.experimentKind"] == "custom_model_development"
        view = json.loads(json.loads(tags[f"mlflow.sharedViewState.{match[2]}"])["state"])
        assert view["orderByKey"] == "metrics.`test.auc`"
        assert (root / "mlruns/mlflow.db").is_file()
        assert not any((root / "sub").iterdir())
        process.send_signal(signal.SIGINT)  # to the command alone, which forwards it to the server
        assert process.wait(60) == 130
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.slow
def test_server_that_exits_before_it_answers_is_an_error() -> None:
    script = (
        "import sys; from sentiment.servers import serve_until_exit; "
        "serve_until_exit([sys.executable, '-c', 'import sys; sys.exit(7)'], {}, 'http://127.0.0.1:1/', "
        "lambda: print('announced'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert "UserError: the server exited with status 7" in done.stderr
    assert done.stdout == ""

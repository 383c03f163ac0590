"""`sentiment repair` after a kill, a full disk or a power failure: truncated files."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.project import Project, kill, wait_for

HINT = "run `sentiment repair`"
RWLOCK = Path(".dvc/tmp/rwlock")
LOCK = Path("dvc.lock")


def _cut_in_value(lock: str) -> str:
    return lock[: lock.index("md5: ", lock.index("\n  train:")) + 12]


UNREADABLE: dict[str, Callable[[str], str]] = {
    "empty": lambda lock: "",
    "in the first line": lambda lock: lock[:9],
    "half": lambda lock: lock[: len(lock) // 2],
    "in a value": _cut_in_value,
    "without its last byte": lambda lock: lock[:-1],
    "without its last line": lambda lock: lock[: lock.rstrip("\n").rindex("\n") + 1],
    "in the name of a stage": lambda lock: lock[: lock.index("\n  tune:") + 5],
    "zeros at its end": lambda lock: lock[:5000] + "\0" * (len(lock) - 5000),
}
READABLE: dict[str, Callable[[str], str]] = {
    "header": lambda lock: lock[: lock.index("stages:")],
    "at the end of a stage": lambda lock: lock[: lock.index("\n  train:") + 1],
}
"""DVC can parse these: stages are missing, or outputs differ."""


def _repair(project: Project, status: int = 0) -> str:
    done = project.run("sentiment", "repair", status=status)
    return done.stdout + done.stderr


def _require_unchanged(project: Project, lock: str, *, without_run_cache: bool = False) -> None:
    """Require that the next `dvc repro` runs no stage and restores dvc.lock.

    without_run_cache: evaluate may run. DVC has no run cache for it, since git keeps one of its outputs.
    """
    output = project.run("dvc", "repro").stdout
    if without_run_cache:
        output = output.replace("Running stage 'evaluate'", "")
    assert "Running stage" not in output
    assert (project.root / LOCK).read_text() == lock
    assert project.run("dvc", "status").stdout.startswith("Data and pipelines are up to date")


@pytest.mark.parametrize("place", UNREADABLE)
def test_truncated_lock_is_named_by_check_and_repaired(project: Project, place: str) -> None:
    lock = (project.root / LOCK).read_text()
    (project.root / LOCK).write_text(UNREADABLE[place](lock))
    output = project.run("sentiment", "check", status=2).stderr
    assert HINT in output
    assert "dvc.lock: " in output
    assert "dvc.lock: " in _repair(project)
    assert (project.root / LOCK).read_text() == lock
    project.run("sentiment", "check")


@pytest.mark.parametrize("place", READABLE)
def test_truncated_lock_that_parses_is_completed_by_dvc(project: Project, place: str) -> None:
    lock = (project.root / LOCK).read_text()
    (project.root / LOCK).write_text(READABLE[place](lock))
    assert project.run("sentiment", "check").returncode == 0
    _require_unchanged(project, lock, without_run_cache=True)


def test_uncommitted_results_are_retained(project: Project) -> None:
    project.set_params({"evaluate.threshold.value": 0.6})
    project.run("dvc", "repro")
    lock = (project.root / LOCK).read_text()
    for cut in (lambda text: text[:-40], lambda text: ""):
        (project.root / LOCK).write_text(cut(lock))
        _repair(project)
        _require_unchanged(project, lock, without_run_cache=True)


def test_lock_that_was_never_committed_is_rebuilt_from_the_run_cache(project: Project) -> None:
    lock = (project.root / LOCK).read_text()
    project.run("git", "rm", "-q", "--cached", "dvc.lock")
    project.run("git", "commit", "-qm", "no results")
    for cut in (lambda text: "", lambda text: text[: len(text) // 2]):
        (project.root / LOCK).write_text(cut(lock))
        _repair(project)
        _require_unchanged(project, lock, without_run_cache=True)


@pytest.mark.parametrize("content", ["", '{"write": {"/a"', '{"write": {"/a": 3}}', "\0\0"])
def test_corrupt_rwlock_is_named_by_check_and_removed(project: Project, content: str) -> None:
    (project.root / RWLOCK).write_text(content)
    assert "rwlock" in project.run("dvc", "status", status=1).stderr.lower()
    output = project.run("sentiment", "check", status=2).stderr
    assert HINT in output
    assert "rwlock" in output
    assert "rwlock: truncated or corrupt" in _repair(project)
    project.run("dvc", "status")


def test_rwlock_with_a_reused_pid_is_removed(project: Project) -> None:
    info = {"pid": os.getpid(), "cmd": "/somewhere/bin/dvc repro"}  # the pid of a process that is not DVC
    path = str(project.root / "data/reviews/train.parquet")
    (project.root / RWLOCK).write_text(json.dumps({"write": {path: info}}))
    assert "busy" in project.run("dvc", "status", status=1).stderr
    assert f"processes that are dead ({os.getpid()})" in _repair(project)
    project.run("dvc", "status")


def test_repair_changes_nothing_while_dvc_or_a_stage_runs(project: Project) -> None:
    (project.root / "data/tokens/.train.partial").mkdir()
    for command in (("dvc", "repro", "--force", "--single-item", "train"), ("python", "-m", "stages.train")):
        process = project.start(*command)
        try:
            wait_for(lambda: list(project.root.glob(".checkpoints/*/.lock")), process)
            output = _repair(project, status=2)
        finally:
            kill(process)
        assert "processes are using" in output
        assert (project.root / "data/tokens/.train.partial").exists()
        shutil.rmtree(project.root / ".checkpoints")


def test_only_temporary_files_of_dead_processes_are_removed(project: Project) -> None:
    left = (
        "data/tokens/.train.partial",
        "data/tokens/train/.ids.npy.partial",
        f"models/baseline/.{'a' * 22}.tmp",
        f".dvc/cache/files/md5/00/.{'b-' * 11}.tmp",
        "mlruns/.mlflow.db.partial-journal",
    )
    for name in (*left, "mlruns/.mine", ".env"):
        (project.root / name).parent.mkdir(parents=True, exist_ok=True)
        (project.root / name).write_text("")
    assert project.run("dvc", "status").stdout.startswith("Data and pipelines are up to date")
    output = _repair(project)
    assert all(f"{name}: left over" in output for name in left)
    assert not [name for name in left if (project.root / name).exists()]
    assert (project.root / "mlruns/.mine").exists()
    assert (project.root / ".env").exists()


def test_missing_outputs_are_restored_from_the_cache_or_named(project: Project) -> None:
    lock = (project.root / LOCK).read_text()
    before = project.tree()
    (project.root / "models/baseline/model.safetensors").unlink()
    shutil.rmtree(project.root / "data/tokens/train")
    output = _repair(project)
    assert "models/baseline/model.safetensors: missing, restored" in output
    assert "data/tokens/train: missing, restored" in output
    assert project.tree() == before
    _require_unchanged(project, lock)

    shutil.rmtree(project.root / ".dvc/cache")
    (project.root / "models/baseline/model.safetensors").unlink()
    assert "models/baseline/model.safetensors: neither here nor in the cache" in _repair(project)
    assert not (project.root / "models/baseline/model.safetensors").exists()


def _objects(project: Project, name: str) -> Path:
    """Return the cached object of an output that is a file."""
    lock = (project.root / LOCK).read_text()
    digest = lock.split(f"path: {name}\n")[-1].split("md5: ")[1].split()[0]
    return project.root / ".dvc/cache/files/md5" / digest[:2] / digest[2:]


def _truncate(path: Path) -> None:
    path.chmod(0o644)
    os.truncate(path, path.stat().st_size // 2)
    path.chmod(0o444)


def test_corrupt_objects_are_replaced_by_files_of_the_working_tree(project: Project) -> None:
    lock = (project.root / LOCK).read_text()
    model, tokens = "models/baseline/model.safetensors", "data/tokens/train"
    content = (project.root / model).read_bytes()
    child = json.loads(_objects(project, tokens).read_bytes())[1]
    child_object = project.root / ".dvc/cache/files/md5" / child["md5"][:2] / child["md5"][2:]
    for path in (_objects(project, model), child_object):
        _truncate(path)
    output = _repair(project)
    assert f"{model}: its object in the cache was corrupt, replaced" in output
    assert f"{tokens}/{child['relpath']}: its object in the cache was corrupt, replaced" in output
    assert _objects(project, model).read_bytes() == content
    assert _objects(project, model).stat().st_mode & 0o777 == 0o444
    (project.root / model).unlink()
    _repair(project)
    assert (project.root / model).read_bytes() == content
    _require_unchanged(project, lock)


def test_corrupt_objects_without_replacement_are_removed(project: Project) -> None:
    lock = (project.root / LOCK).read_text()
    report, tokens = "reports/quarantine.csv", "data/tokens/train"
    _truncate(_objects(project, tokens))
    (project.root / report).unlink()
    _objects(project, report).chmod(0o644)
    _objects(project, report).write_text("cut")
    _objects(project, report).chmod(0o444)
    output = _repair(project)
    assert f"{report}: its object in the cache is corrupt, removed" in output
    assert f"{tokens}: its object in the cache is corrupt, removed" in output
    assert f"{report}: neither here nor in the cache" in output.replace(f"{tokens}, ", "")
    project.run("dvc", "repro")
    assert (project.root / LOCK).read_text() == lock


@pytest.mark.parametrize("cut", [0, 40, None])
def test_corrupt_and_missing_metrics_are_restored(project: Project, cut: int | None) -> None:
    lock = (project.root / LOCK).read_text()
    path = project.root / "metrics/train.json"
    content = path.read_bytes()
    for without_cache in (False, True):
        if without_cache:
            shutil.rmtree(project.root / ".dvc/cache")
        if cut is None:
            path.unlink()
        else:
            path.write_bytes(content[:cut])
            assert HINT in project.run("sentiment", "check", status=2).stderr
        assert "metrics/train.json: restored" in _repair(project)
        assert path.read_bytes() == content
    assert (project.root / LOCK).read_text() == lock


def test_corrupt_object_that_no_stage_writes_is_moved(project: Project) -> None:
    file = project.root / "data/incoming/mine.csv"
    file.write_text("text,label\nA fine film,1\n")
    project.run("dvc", "add", "--quiet", "data/incoming/mine.csv")
    md5 = hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()
    cached = project.root / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
    file.unlink()
    cached.chmod(0o644)
    cached.write_text("text,label\nA fine")
    output = project.run("sentiment", "repair").stdout
    assert "data/incoming/mine.csv: its object in the cache is corrupt, moved to" in output
    assert (project.root / ".dvc/tmp" / f"corrupt-{md5}").read_text() == "text,label\nA fine"


def test_truncated_dvc_file_is_restored_from_the_last_commit(project: Project) -> None:
    folder = project.root / "extra"
    folder.mkdir()
    (folder / "a").write_text("text,label\n")
    project.run("dvc", "add", "extra/a")
    project.commit("a")
    (folder / "b").write_text("text,label\n")
    content = (folder / "a.dvc").read_text()
    project.run("dvc", "add", "extra/b")
    (folder / "a.dvc").write_text("")
    (folder / "b.dvc").write_text("outs:\n- md5: 0f")
    assert "extra/b.dvc: truncated" in project.run("sentiment", "check", status=2).stderr
    output = _repair(project)
    assert "extra/a.dvc: truncated or corrupt, restored from the last commit" in output
    assert "`dvc add extra/b`" in output
    assert (folder / "a.dvc").read_text() == content
    assert (folder / "b").exists()
    project.run("dvc", "add", "extra/b")
    project.run("sentiment", "check")


def test_truncated_journal_retains_its_complete_lines(project: Project) -> None:
    journal = project.root / "mlruns/optuna.journal"
    journal.parent.mkdir(exist_ok=True)
    whole = b'{"op_code":0,"worker_id":"a"}\n'
    journal.write_bytes(whole + b'{"op_code":4,"wor')
    assert "mlruns/optuna.journal: incomplete last line" in _repair(project)
    assert journal.read_bytes() == whole


def test_nothing_to_repair(project: Project, tmp_path: Path) -> None:
    before = project.tree()
    assert _repair(project) == "nothing to repair\n"
    assert project.tree() == before
    assert "not inside a repository" in Project(tmp_path).run("sentiment", "repair", status=2).stderr

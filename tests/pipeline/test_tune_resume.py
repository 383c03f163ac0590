"""`tune` is killed or interrupted at several moments and resumes with the same command."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import optuna
import pytest
from optuna.trial import TrialState

from sentiment.tuning.storage import open_journal
from tests.project import PATIENCE_S, Project, kill, wait_for
from tests.tuning.postgres import PASSWORD, USER, postgres

SLOW: dict[str, Any] = {
    "tune.trials": 4,
    "tune.sampler.startup_trials": 2,
    "train.batch_size": 4,
    "model.embedding_dim": 64,
}
"""Trials of a few seconds; the sampler draws the last from the results of the first."""

OUTPUTS = ("models/tuned/model.safetensors", "reports/tune.csv", "metrics/tune.json")
OFTEN = {"CHECKPOINT_MINUTES": "0.001"}
TUNE = ("python", "-m", "stages.tune")
RUN_STATUS = {TrialState.COMPLETE: "FINISHED", TrialState.PRUNED: "KILLED", TrialState.FAIL: "FAILED"}

Moment = Callable[[Path], object]


@pytest.fixture(scope="module")
def tokenized(reproduced: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project before its first search, with an empty store."""
    root = tmp_path_factory.mktemp("tokenized") / "project"
    shutil.copytree(reproduced.root, root, ignore=shutil.ignore_patterns("mlruns"))
    for name in OUTPUTS:
        (root / name).unlink()
    project = Project(root)
    project.set_params(SLOW)
    return project


@pytest.fixture(scope="module")
def uninterrupted(tokenized: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose `tune` was not interrupted."""
    root = tmp_path_factory.mktemp("uninterrupted") / "project"
    shutil.copytree(tokenized.root, root)
    project = Project(root)
    project.stage("tune")
    return project


def _journal(root: Path) -> str:
    path = root / "mlruns/optuna.journal"
    return path.read_text() if path.exists() else ""


def _study_is_made(root: Path) -> bool:
    return '"op_code":0' in _journal(root)


def _in_trial(number: int) -> Moment:
    """After the trial's first checkpoint."""
    return lambda root: Project(root).trial_checkpoints(number)


def _between(ended: int) -> Moment:
    """After a number of trials have been recorded as finished."""
    return lambda root: len(re.findall(r'"op_code":6.*"datetime_complete"', _journal(root))) >= ended


def _after(seconds: float) -> Moment:
    start = time.monotonic()
    return lambda root: time.monotonic() - start >= seconds


def _stop_at(
    project: Project, moment: Moment, sign: signal.Signals = signal.SIGKILL, **environment: str
) -> int:
    """Start the stage, send its process group a signal once `moment` is true; return its exit status."""
    process = project.start(*TUNE, **OFTEN, **environment)
    wait_for(lambda: moment(project.root), process)
    os.killpg(process.pid, sign)
    return process.wait(PATIENCE_S)


def _studies(project: Project) -> list[optuna.Study]:
    storage = open_journal(project.root / "mlruns/optuna.journal")
    names = optuna.get_all_study_names(storage)
    return [optuna.load_study(storage=storage, study_name=name) for name in names]


def _content(study: optuna.Study) -> list[tuple[object, ...]]:
    """Return the content of a study without times."""
    return [
        (trial.number, trial.state, trial.params, trial.values, trial.intermediate_values)
        for trial in study.trials
    ]


def _require_whole(project: Project, study: optuna.Study, trials: int) -> None:
    """Require each trial once, in study and store, and none in state RUNNING."""
    states = [trial.state for trial in study.trials]
    assert len(states) == trials
    assert set(states) <= set(RUN_STATUS)
    runs = project.runs("tags.stage = 'tune'")
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert parent.info.status == "FINISHED"
    children = {
        int(run.data.tags["tune.trial"]): run.info.status
        for run in runs
        if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id
    }
    assert children == {number: RUN_STATUS[state] for number, state in enumerate(states)}
    assert len(runs) == trials + 1
    assert not list(project.root.glob("mlruns/studies/*/*/checkpoints*"))


def _require_equal_to_uninterrupted(project: Project, uninterrupted: Project) -> None:
    (study,), (straight,) = _studies(project), _studies(uninterrupted)
    _require_whole(project, study, SLOW["tune.trials"])
    assert _content(study) == _content(straight)
    for name in OUTPUTS:
        assert (project.root / name).read_bytes() == (uninterrupted.root / name).read_bytes(), name


def test_resumes_after_kills_at_several_moments(before: Project, uninterrupted: Project) -> None:
    moments = (_study_is_made, _in_trial(0), _between(1), _after(5), _in_trial(2), _in_trial(3), _between(4))
    for moment in moments:
        assert _stop_at(before, moment) == -signal.SIGKILL
    before.stage("tune")
    _require_equal_to_uninterrupted(before, uninterrupted)


def test_resumes_after_ctrl_c(before: Project, uninterrupted: Project) -> None:
    assert _stop_at(before, _in_trial(1), signal.SIGINT) == 130
    assert Counter(run.info.status for run in before.runs()) == Counter(FINISHED=1, KILLED=2)
    before.stage("tune")
    _require_equal_to_uninterrupted(before, uninterrupted)


def test_resumes_after_a_kill_under_dvc(before: Project, uninterrupted: Project) -> None:
    process = before.start("dvc", "repro", "tune", **OFTEN)
    wait_for(lambda: before.trial_checkpoints(1), process)
    kill(process)
    before.run("dvc", "repro", "tune")
    _require_equal_to_uninterrupted(before, uninterrupted)


def test_finished_search_writes_its_results_without_training(uninterrupted: Project, tmp_path: Path) -> None:
    shutil.copytree(uninterrupted.root, tmp_path / "project")
    project = Project(tmp_path / "project")
    for name in OUTPUTS:
        (project.root / name).unlink()
    journal = _journal(project.root)
    assert "4 of 4 trials are done" in project.stage("tune").stderr
    assert _journal(project.root) == journal
    for name in OUTPUTS:
        assert (project.root / name).read_bytes() == (uninterrupted.root / name).read_bytes(), name


def test_winner_without_model_file_is_trained_again(uninterrupted: Project, tmp_path: Path) -> None:
    shutil.copytree(uninterrupted.root, tmp_path / "project")
    project = Project(tmp_path / "project")
    shutil.rmtree(project.root / "mlruns/studies")
    (project.root / OUTPUTS[0]).unlink()
    assert "training it again" in project.stage("tune").stderr
    for name in OUTPUTS:
        assert (project.root / name).read_bytes() == (uninterrupted.root / name).read_bytes(), name


def test_search_can_grow_and_shrink(before: Project, uninterrupted: Project) -> None:
    before.set_params({"tune.trials": 2})
    before.stage("tune")
    two = [(before.root / name).read_bytes() for name in OUTPUTS]
    before.set_params({"tune.trials": 4})
    before.stage("tune")
    _require_equal_to_uninterrupted(before, uninterrupted)
    before.set_params({"tune.trials": 2})
    before.stage("tune")
    assert [(before.root / name).read_bytes() for name in OUTPUTS] == two


def test_another_space_is_another_study(before: Project) -> None:
    before.set_params({"tune.trials": 1})
    before.stage("tune")
    first = _content(_studies(before)[0])
    before.set_params({"tune.space": {"model.hidden_units": {"kind": "categorical", "choices": [4, 8]}}})
    before.stage("tune")
    old, new = _studies(before)
    assert _content(old) == first
    assert len(new.trials) == 1
    runs = [run for run in before.runs() if "tune.trial" in run.data.tags]
    assert {run.data.tags["tune.study"] for run in runs} == {old.study_name, new.study_name}


def test_workers_in_changing_number_resume_after_kills_at_several_moments(
    before: Project, uninterrupted: Project
) -> None:
    for moment, workers in ((_after(4), "2"), (_in_trial(1), "2"), (_between(2), "1"), (_in_trial(3), "2")):
        _stop_at(before, moment, TUNE_WORKERS=workers)
    before.stage("tune", TUNE_WORKERS="2")
    _require_equal_to_uninterrupted(before, uninterrupted)


def test_more_workers_than_parallel_trials_are_not_started(before: Project, uninterrupted: Project) -> None:
    output = before.stage("tune", TUNE_WORKERS="3").stderr
    assert "TUNE_WORKERS: 3, but tune.max_parallel is 2: 2 workers run" in output
    _require_equal_to_uninterrupted(before, uninterrupted)


def test_workers_exit_with_their_parent(before: Project) -> None:
    process = before.start(*TUNE, **OFTEN, TUNE_WORKERS="2")
    workers = wait_for(lambda: _two_holders(before), process)
    process.kill()
    process.wait(PATIENCE_S)
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{worker}/fd").exists() for worker in workers):
        assert time.monotonic() < deadline, "a worker outlives its parent"
        time.sleep(0.05)


def test_interrupted_workers_leave_nothing_running(before: Project, uninterrupted: Project) -> None:
    assert _stop_at(before, lambda root: _two_holders(before), signal.SIGINT, TUNE_WORKERS="2") == 130
    assert "RUNNING" not in {run.info.status for run in before.runs()}
    before.stage("tune")
    _require_equal_to_uninterrupted(before, uninterrupted)


def test_killed_worker_is_replaced_and_three_kills_in_a_trial_stop_the_search(
    before: Project, uninterrupted: Project, tmp_path: Path
) -> None:
    process = before.start(*TUNE, log=tmp_path / "log", **OFTEN, TUNE_WORKERS="2")
    killed: set[int] = set()
    for _ in range(3):
        worker = _next_in_training(before, 1, killed, process)
        os.kill(worker, signal.SIGKILL)
        killed.add(worker)
    assert process.wait(PATIENCE_S) == 2
    output = (tmp_path / "log").read_text()
    assert output.count("trial 1: its worker crashed (SIGKILL)") == 3
    assert "error: tune: trial 1 could not be completed in 3 attempts" in output
    assert "Traceback" not in output
    assert "RUNNING" not in {run.info.status for run in before.runs()}
    (study,) = _studies(before)
    assert study.trials[1].state == TrialState.RUNNING
    before.stage("tune")
    _require_equal_to_uninterrupted(before, uninterrupted)


def _next_in_training(
    project: Project, trial: int, earlier: set[int], process: subprocess.Popen[bytes]
) -> int:
    """Wait for another process that trains a trial: its first checkpoint shows which one."""
    (worker,) = wait_for(lambda: _holders(project, trial) - earlier, process)
    found = _last_checkpoint(project, trial)
    wait_for(lambda: _last_checkpoint(project, trial) > found, process)
    return worker


def _holders(project: Project, trial: int | None = None) -> set[int]:
    """Return the processes that hold the lock of a trial; None: of any trial.

    A process that merely tries a lock has the file open too, but no `lock:` beside it.
    """
    holders = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended, or belongs to another user
            for link in (process / "fd").iterdir():
                target = link.readlink()
                found = re.fullmatch(r"trial-(\d+)\.lock", target.name)
                ours = found and target.is_relative_to(project.root) and trial in {None, int(found[1])}
                if ours and "\nlock:" in (process / "fdinfo" / link.name).read_text():
                    holders.add(int(process.name))
    return holders


def _last_checkpoint(project: Project, trial: int) -> int:
    """Return when a trial's state was last written, in nanoseconds; 0: never."""
    return max((path.stat().st_mtime_ns for path in project.trial_checkpoints(trial)), default=0)


def _two_holders(project: Project) -> set[int]:
    holders = _holders(project)
    return holders if len(holders) == 2 else set()


def test_two_searches_at_once_share_the_trials(
    before: Project, uninterrupted: Project, tmp_path: Path
) -> None:
    both = [before.start(*TUNE, log=tmp_path / f"log{number}") for number in range(2)]
    statuses = [process.wait(PATIENCE_S) for process in both]
    output = [(tmp_path / f"log{number}").read_text() for number in range(2)]
    assert statuses == [0, 0], output
    _require_equal_to_uninterrupted(before, uninterrupted)
    assert all(text.count("validation AUC") + text.count("pruned") for text in output)


def test_too_many_failed_trials_stop_the_search_with_their_errors(before: Project) -> None:
    rates = {"kind": "categorical", "choices": [1e39, 2e39]}
    before.set_params(
        {
            "tune.trials": 6,
            "tune.max_failed": 2,
            "train.optimizer.learning_rate": 1e39,
            "tune.space": {"train.optimizer.learning_rate": rates},
        }
    )
    for workers, most in (("1", 2), ("2", 3)):  # one may be under way when the second one fails
        shutil.rmtree(before.root / "mlruns", ignore_errors=True)
        output = before.stage("tune", status=2, TUNE_WORKERS=workers).stderr
        assert "tune.max_failed" in output
        assert re.search(r"trial 1: TrainingDivergedError: .*(not finite|the loss is)", output)
        assert "Traceback" not in output
        (study,) = _studies(before)
        states = [trial.state for trial in study.trials]
        assert set(states) == {TrialState.FAIL}
        assert 2 <= len(states) <= most
        assert "RUNNING" not in {run.info.status for run in before.runs()}
    again = before.stage("tune", status=2).stderr
    assert "trial 1: TrainingDivergedError" in again


@pytest.mark.parametrize("workers", ["1", "2"])
def test_truncated_journal_stops_the_search_and_stays_unchanged(
    uninterrupted: Project, tmp_path: Path, workers: str
) -> None:
    shutil.copytree(uninterrupted.root, tmp_path / "project")
    project = Project(tmp_path / "project")
    journal = project.root / "mlruns/optuna.journal"
    truncated = journal.read_bytes()[:-10]
    journal.write_bytes(truncated)
    output = project.stage("tune", status=2, TUNE_WORKERS=workers).stderr
    assert "optuna.journal: line" in output
    assert "Traceback" not in output
    assert journal.read_bytes() == truncated


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    """The port of a PostgreSQL server."""
    with postgres() as port:
        yield port


def test_killed_with_the_study_in_a_database(server: int, before: Project, uninterrupted: Project) -> None:
    address = f"postgresql+psycopg://{USER}:{quote(PASSWORD)}@127.0.0.1:{server}/postgres"
    for moment in (_in_trial(0), _in_trial(2)):
        _stop_at(before, moment, TUNE_STORAGE=address)
    output = before.stage("tune", TUNE_STORAGE=address)
    assert PASSWORD not in output.stderr + output.stdout
    assert quote(PASSWORD) not in output.stderr + output.stdout
    study = optuna.load_study(storage=address, study_name=_studies(uninterrupted)[0].study_name)
    _require_whole(before, study, SLOW["tune.trials"])
    assert _content(study) == _content(_studies(uninterrupted)[0])
    for name in OUTPUTS:
        assert (before.root / name).read_bytes() == (uninterrupted.root / name).read_bytes(), name


def test_wrong_password_is_reported_without_the_password(server: int, before: Project) -> None:
    address = f"postgresql+psycopg://{USER}:not-this-0ne@127.0.0.1:{server}/postgres"
    output = before.stage("tune", status=2, TUNE_STORAGE=address)
    assert "password authentication failed" in output.stderr
    assert "not-this-0ne" not in output.stderr + output.stdout
    assert "Traceback" not in output.stderr

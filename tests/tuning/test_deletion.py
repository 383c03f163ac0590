"""A study is deleted, or a trial ended, in the dashboard while a search runs: one error message."""

from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import TrialState

from sentiment.tuning.storage import open_journal
from tests.project import PATIENCE_S, Project, clone, kill, wait_for

OFTEN = {"CHECKPOINT_MINUTES": "0.001"}
SQLITE = {"TUNE_STORAGE": "sqlite:///mlruns/studies.db"}


@pytest.fixture(scope="module")
def tokenized(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project before its first search, with trials of some seconds."""
    project = clone(tmp_path_factory.mktemp("tokenized"))
    project.set_params(
        {"train.batch_size": 4, "train.epochs": 3, "model.embedding_dim": 64, "tune.trials": 3}
    )
    for stage in ("download", "tokenize"):
        project.stage(stage)
    return project


def _storage(project: Project, environment: dict[str, str]) -> BaseStorage:
    if "TUNE_STORAGE" in environment:
        return RDBStorage(f"sqlite:///{project.root}/mlruns/studies.db")
    return open_journal(project.root / "mlruns/optuna.journal")


def _delete_study(storage: BaseStorage) -> None:
    (study,) = storage.get_all_studies()
    storage.delete_study(study._study_id)


def _fail_running_trial(storage: BaseStorage) -> None:
    (study,) = storage.get_all_studies()
    running = storage.get_all_trials(study._study_id, states=(TrialState.RUNNING,))
    storage.set_trial_state_values(running[0]._trial_id, TrialState.FAIL)


def _output_while(project: Project, act: Callable[[BaseStorage], Any], environment: dict[str, str]) -> str:
    """Start a search, do something to its storage while its second trial trains; return what it printed."""
    log = project.root / "log"
    process = project.start("python", "-m", "stages.tune", log=log, **OFTEN, **environment)
    try:
        wait_for(lambda: project.trial_checkpoints(0), process)
        storage = _storage(project, environment)  # a database takes a while to open
        wait_for(lambda: project.trial_checkpoints(1), process)
        act(storage)
        assert process.wait(PATIENCE_S) == 2, log.read_text()
    finally:
        kill(process)
    return log.read_text()


@pytest.mark.parametrize(
    "environment", [{}, {"TUNE_WORKERS": "2"}, SQLITE], ids=["journal", "two-workers", "sqlite"]
)
def test_study_deleted_during_the_search(before: Project, environment: dict[str, str]) -> None:
    output = _output_while(before, _delete_study, environment)
    assert "Traceback" not in output
    assert output.count("error: ") == 1
    assert output.splitlines()[-1].startswith("error: tune: the study or one of its trials was deleted")
    before.stage("tune", **environment)
    assert before.metrics("tune")["trials"]["finished"] > 0
    storage = _storage(before, environment)
    (name,) = optuna.get_all_study_names(storage)
    assert len(optuna.load_study(study_name=name, storage=storage).trials) == 3


def test_trial_ended_during_its_training(before: Project) -> None:
    output = _output_while(before, _fail_running_trial, {})
    assert "Traceback" not in output
    assert output.splitlines()[-1].startswith("error: tune: a running trial was ended by another program")
    before.stage("tune")
    assert before.metrics("tune")["trials"]["failed"] == 1


def test_study_deleted_after_a_kill_does_not_leave_its_checkpoint_to_the_next_one(before: Project) -> None:
    """The next study would lack the evaluations before the checkpoint, and prune other trials."""
    process = before.start("python", "-m", "stages.tune", log=before.root / "log", **OFTEN)
    wait_for(lambda: _load_reports(before), process)
    wait_for(lambda: before.trial_checkpoints(0), process)
    kill(process)
    _delete_study(_storage(before, {}))
    before.stage("tune")
    reports = _load_reports(before)
    assert reports == list(range(1, len(reports) + 1))


def _load_reports(project: Project) -> list[int]:
    """Return the indices of the evaluations that trial 0 has reported; none before the study exists."""
    storage = _storage(project, {})
    studies = optuna.get_all_study_names(storage)
    trials = optuna.load_study(study_name=studies[0], storage=storage).trials if studies else []
    return sorted(trials[0].intermediate_values) if trials else []

"""A tracking store that fails during a stage: one error message, and resuming once it is back."""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from optuna.trial import TrialState

from bench.tracking_server import PASSWORD, TrackingServer, tracking_server
from sentiment.errors import TrainingDivergedError, UserError, translated_errors
from sentiment.settings import Settings
from sentiment.tokens.batches import TrainingData
from sentiment.tokens.token_store import TokenizedReviews
from sentiment.tracking import Run as StartedRun
from sentiment.tracking import open_store, start_run
from sentiment.training.checkpoint import STATE_FILE, Checkpoint
from sentiment.tuning import trial as trials
from sentiment.tuning.active_trial import acquire_trial
from sentiment.tuning.executors import in_process
from sentiment.tuning.storage import open_journal
from sentiment.tuning.study import open_search
from sentiment.tuning.trainer import TrialSuspended
from sentiment.tuning.trial_records import open_search_run
from tests.project import PATIENCE_S, Project, clone, kill, wait_for
from tests.tuning import postgres
from tests.tuning.studies import searched_params

TRIALS = 3


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrackingServer]:
    with tracking_server(tmp_path_factory.mktemp("tracking") / "server") as server:
        yield server


@pytest.fixture
def server(started: TrackingServer) -> TrackingServer:
    """A server that answers, whatever the test before did to it."""
    if started.process is None:
        started.start()
    return started


@pytest.fixture(scope="module")
def tokenized(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project before its first training, with trainings of some seconds."""
    project = clone(tmp_path_factory.mktemp("tokenized"))
    project.set_params({"train.batch_size": 4, "model.embedding_dim": 64, "tune.trials": TRIALS})
    for stage in ("download", "tokenize"):
        project.stage(stage)
    return project


def _environment(project: Project, server: TrackingServer) -> dict[str, str]:
    """An experiment of the project's own; few retries, so that the test need not wait for them."""
    return {
        "MLFLOW_TRACKING_URI": server.address,
        "MLFLOW_EXPERIMENT_NAME": str(project.root),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "CHECKPOINT_MINUTES": "0.001",
    }


def _runs(project: Project, server: TrackingServer) -> list[Run]:
    client = MlflowClient(server.address)
    experiment = client.get_experiment_by_name(str(project.root))
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


def _killed_under(
    project: Project, server: TrackingServer, stage: str, started: Callable[[], object], **environment: str
) -> str:
    """Start a stage, kill the server once it has `started`; return what the stage said at its end."""
    log = project.root / "log"
    process = project.start(
        "python", "-m", f"stages.{stage}", log=log, **_environment(project, server), **environment
    )
    try:
        wait_for(started, process)
        server.kill()
        assert process.wait(PATIENCE_S) == UserError.exit_status
    finally:
        kill(process)
        print(log.read_text())
    return log.read_text()


def _require_one_error(said: str) -> None:
    assert said.count("error: ") == 1
    assert said.splitlines()[-1].startswith(
        "error: Cannot reach the MLflow tracking store (MLFLOW_TRACKING_URI): "
    )
    assert said.endswith("run the same command again to resume\n")
    assert "Traceback" not in said
    assert PASSWORD not in said


def _training_states(project: Project) -> list[Path]:
    return list(project.root.glob(f".checkpoints/*/{STATE_FILE}"))


def test_training_resumes_in_its_run_when_the_server_is_back(before: Project, server: TrackingServer) -> None:
    _require_one_error(_killed_under(before, server, "train", partial(_training_states, before)))
    server.start()
    again = before.stage("train", **_environment(before, server))
    assert "resuming at epoch" in again.stderr
    (run,) = _runs(before, server)
    assert run.info.status == "FINISHED"
    history = MlflowClient(server.address).get_metric_history(run.info.run_id, "validation_auc")
    assert [metric.step for metric in history] == [1, 2]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_search_stops_with_one_message_and_resumes(
    before: Project, server: TrackingServer, workers: str
) -> None:
    in_second_trial = partial(before.trial_checkpoints, 1)
    said = _killed_under(before, server, "tune", in_second_trial, TUNE_WORKERS=workers)
    _require_one_error(said)
    assert "worker crashed" not in said
    assert TrialState.FAIL not in _states(before)

    server.start()
    before.stage("tune", **_environment(before, server), TUNE_WORKERS=workers)
    states = _states(before)
    assert len(states) == TRIALS
    assert set(states) <= {TrialState.COMPLETE, TrialState.PRUNED}
    runs = _runs(before, server)
    numbers = Counter(run.data.tags.get("tune.trial") for run in runs)
    assert numbers == {None: 1, **{str(number): 1 for number in range(TRIALS)}}
    assert {run.info.status for run in runs} <= {"FINISHED", "KILLED"}


def _states(project: Project) -> list[TrialState]:
    storage = open_journal(project.root / "mlruns/optuna.journal")
    (study,) = storage.get_all_studies()
    return [trial.state for trial in storage.get_all_trials(study._study_id)]


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process as a stage in an empty repository."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")


@pytest.fixture
def orphan(alone: None, server: TrackingServer, monkeypatch: pytest.MonkeyPatch) -> StartedRun:
    """A run whose store has died."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
    run = start_run(open_store(), "train", "train")
    server.kill()
    return run


def test_original_error_of_a_run_propagates_before_that_of_its_store(orphan: StartedRun) -> None:
    for error in (UserError("what the user did"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as raised, translated_errors(), orphan:
            raise error
        assert raised.value is error


def test_error_tag_of_a_run_contains_no_password(server: TrackingServer, orphan: StartedRun) -> None:
    with pytest.raises(MlflowException, match=PASSWORD) as met:
        orphan.tag({"a": "b"})
    server.start()
    with pytest.raises(UserError), translated_errors(), orphan:
        raise met.value
    found = orphan.store.client.get_run(orphan.id)
    assert found.info.status == "FAILED"
    assert "Cannot reach" in found.data.tags["error"]
    assert PASSWORD not in found.data.tags["error"]


@pytest.mark.usefixtures("alone")
def test_failed_trial_stays_running_in_the_study_if_its_run_cannot_be_updated(
    server: TrackingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(*_: object) -> None:
        server.kill()
        raise TrainingDivergedError("the loss is nan")

    # No training diverges at will between two words to the store.
    monkeypatch.setattr(in_process, "fit_trial", diverge)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
    split = TokenizedReviews.from_lists([[2, 3], [4, 5]], [0, 1])
    search = open_search(searched_params(), TrainingData(10, split, split))
    parent = open_search_run(open_store(), search)
    with acquire_trial(search) as trial:
        assert trial is not None
        with pytest.raises(UserError, match="Cannot reach"), translated_errors():
            trials.run_trial(trial, parent, in_process.LocalTrainer())
    assert search.load_trials()[0].state == TrialState.RUNNING


@pytest.mark.usefixtures("alone")
def test_suspended_trial_retains_its_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    def suspend(params: object, reviews: object, number: int, checkpoint: Checkpoint, *_: object) -> None:
        (checkpoint.folder / STATE_FILE).touch()
        raise TrialSuspended

    monkeypatch.setattr(
        in_process, "fit_trial", suspend
    )  # no worker crashes at will while another trial waits for it
    split = TokenizedReviews.from_lists([[2, 3], [4, 5]], [0, 1])
    search = open_search(searched_params(), TrainingData(10, split, split))
    parent = open_search_run(open_store(), search)
    with acquire_trial(search) as trial:
        assert trial is not None
        trials.run_trial(trial, parent, in_process.LocalTrainer())
    assert search.load_trials()[0].state == TrialState.RUNNING
    assert list(search.trial_folder(0).rglob(STATE_FILE))


@pytest.mark.usefixtures("alone")
def test_unreachable_database_is_reported_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    password = quote(postgres.PASSWORD)
    with postgres.postgres() as port:
        address = f"postgresql+psycopg://{postgres.USER}:{password}@127.0.0.1:{port}/postgres"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        run = start_run(open_store(), "train", "train")
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI") as raised, translated_errors(), run:
        run.log_metrics({"loss": 0.5})
    said = str(raised.value) + "".join(capfd.readouterr()) + caplog.text
    assert "Connection refused" in said
    assert "Traceback" not in said
    assert not [secret for secret in (password, postgres.PASSWORD) if secret in said]

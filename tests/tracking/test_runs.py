"""One run in a real store: reopened, or beside others that do the same at the same moment."""

from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.store.tracking.dbmodels.models import SqlDataset
from sqlalchemy import event
from sqlalchemy.orm import Session

from sentiment.tokens.token_store import TokenizedReviews
from sentiment.tracking import Run, Store, open_store, reopen_run, start_run


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    return open_store()


def _tags(run: Run) -> dict[str, str]:
    return dict(run.store.client.get_run(run.id).data.tags)


def test_reopened_run_keeps_no_tag_below_the_prefix_that_is_not_set_again(store: Store) -> None:
    with start_run(store, "tune", "tune", tags={"best": "of all", "bestow": "nothing"}) as run:
        run.replace_tags("best.", {"train.clip.kind": "norm", "train.clip.threshold": "0.5"})
    before = _tags(run)
    reopened = reopen_run(store, run.id)
    assert reopened is not None
    reopened.replace_tags("best.", {"train.clip.kind": "percentile", "train.clip.percentile": "10.0"})
    changed = {"best.train.clip.kind": "percentile", "best.train.clip.percentile": "10.0"}
    del before["best.train.clip.threshold"]
    assert _tags(reopened) == before | changed


def test_two_runs_log_the_same_data_at_once(store: Store) -> None:
    reviews = TokenizedReviews.from_lists([[2], [3, 4]], [0, 1])
    first, second = (start_run(store, "tune", name) for name in ("first", "second"))
    overtaken = []

    def overtake(session: Session, *_: Any) -> None:
        """Between MLflow's look for the row and its making it."""
        if not overtaken and any(isinstance(row, SqlDataset) for row in session.new):
            overtaken.append(session)
            second.log_data("train", reviews, Path("data/tokens/train"))

    event.listen(Session, "before_flush", overtake)
    try:
        first.log_data("train", reviews, Path("data/tokens/train"))
    finally:
        event.remove(Session, "before_flush", overtake)
    assert overtaken
    for run in (first, second):
        (logged,) = store.client.get_run(run.id).inputs.dataset_inputs
        assert (logged.dataset.name, logged.dataset.digest) == ("reviews-train", reviews.digest)


def test_two_processes_make_the_experiment_at_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    create = MlflowClient.create_experiment

    def overtaken(client: MlflowClient, *arguments: Any) -> str:
        create(client, *arguments)
        return str(create(client, *arguments))

    monkeypatch.setattr(MlflowClient, "create_experiment", overtaken)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "another")
    opened = open_store()
    assert opened.experiment_id == open_store().experiment_id != store.experiment_id

"""One run in a real store, reopened."""

from pathlib import Path

import pytest

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
        run.retag("best.", {"train.clip.kind": "norm", "train.clip.threshold": "0.5"})
    before = _tags(run)
    reopened = reopen_run(store, run.id)
    assert reopened is not None
    reopened.retag("best.", {"train.clip.kind": "percentile", "train.clip.percentile": "10.0"})
    changed = {"best.train.clip.kind": "percentile", "best.train.clip.percentile": "10.0"}
    del before["best.train.clip.threshold"]
    assert _tags(reopened) == before | changed

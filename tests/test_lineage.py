"""The run of a model in a real store, found by its weights and origin; names of runs."""

import itertools
from pathlib import Path

import pytest
import torch

from sentiment.lineage import (
    find_model_run,
    find_or_create_model_run,
    start_stage_run,
    tag_run_with_model,
)
from sentiment.model.classifier import SentimentClassifier
from sentiment.model.model_config import Origin
from sentiment.model.model_files import save_model
from sentiment.params import load_params
from sentiment.settings import Settings
from sentiment.tracking import Run, Store, open_store, start_run
from tests.model.small_model import model_params
from tests.project import ROOT

ORIGINS = {
    "one": Origin(params="a", data="d", code="c", study="tune-x", trial=2),
    "other trial of equal values": Origin(params="a", data="d", code="c", study="tune-x", trial=5),
    "other study": Origin(params="a", data="d", code="c", study="tune-y", trial=2),
    "other parameters": Origin(params="b", data="d", code="c", study="tune-x", trial=2),
    "other data": Origin(params="a", data="e", code="c", study="tune-x", trial=2),
    "other code": Origin(params="a", data="d", code="f", study="tune-x", trial=2),
}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    opened = open_store()
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return opened


def _saved(folder: Path, origin: Origin | None) -> Path:
    torch.manual_seed(1)
    save_model(folder, SentimentClassifier(model_params(), 6), origin)
    return folder


def test_runs_of_equal_weights_are_distinguished_in_any_order_of_creation(
    store: Store, tmp_path: Path
) -> None:
    folders = {name: _saved(tmp_path / name, origin) for name, origin in ORIGINS.items()}
    assert len({(folder / "model.safetensors").read_bytes() for folder in folders.values()}) == 1
    for order in itertools.islice(itertools.permutations(folders), 0, None, 240):
        made = {}
        for name in order:
            with start_run(store, "tune", name, source={}) as run:
                tag_run_with_model(run, folders[name])
            made[name] = run.id
        for name, folder in folders.items():
            found = find_model_run(store, folder, "tune")
            assert found is not None
            assert found.id == made[name], (name, order)
            assert find_model_run(store, folder, "train") is None


def test_model_without_an_origin_takes_no_run_that_has_one(store: Store, tmp_path: Path) -> None:
    with start_run(store, "train", "train", source={}) as run:
        tag_run_with_model(run, _saved(tmp_path / "known", Origin(params="a", data="d", code="c")))
    unknown = _saved(tmp_path / "unknown", None)
    assert find_model_run(store, unknown, "train") is None
    adopted = find_or_create_model_run(store, unknown, "train")
    assert adopted.tags()["git.commit_of_model"] == "unknown"
    assert find_or_create_model_run(store, unknown, "train").id == adopted.id != run.id


def _name(run: Run) -> str:
    return str(run.store.client.get_run(run.id).info.run_name)


@pytest.mark.slow
def test_name_of_a_run_holds_what_differs_from_the_previous_one(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "fast-clip")
    params = load_params(ROOT / "params.yaml")
    clip = params.train.clip.model_copy(update={"threshold": 0.25})
    changed = params.model_copy(update={"train": params.train.model_copy(update={"clip": clip})})
    origin = Origin(params="a", data="d", code="c")
    suffixes = []
    for started, source in (
        (params, origin),
        (params, origin),
        (changed, origin),
        (changed, origin.model_copy(update={"data": "e"})),
    ):
        with start_stage_run(store, "train", started, source, {}) as run:
            run.log_params(started.model_dump())
        name, _, suffix = _name(run).partition(" · ")
        assert name == "train fast-clip"
        suffixes.append(suffix)
    assert suffixes == ["", "rerun", "train.clip.threshold=0.25", "other data"]

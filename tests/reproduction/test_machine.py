"""How the machines of two runs are compared by the tags that the runs logged."""

from pathlib import Path

import pytest

from sentiment.reproduction.machine import describe_machine
from sentiment.tracking import open_store, start_run
from sentiment.tracking.origin_tags import MODEL_TAG

WEIGHTS = {"train": "0123"}


@pytest.mark.slow
def test_number_of_threads_is_not_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of earlier versions have it as a tag, and not with the number that the training used."""
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    machine = {MODEL_TAG: WEIGHTS["train"], "cpu.processor": "x86_64"}

    def log(name: str, **tags: str) -> Path:
        database = tmp_path / f"{name}.db"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
        with start_run(open_store(), "train", "train", tags={**machine, **tags}, source={}):
            pass
        return database

    same = log("same", **{"cpu.threads": "1"})
    other = log("other", **{"cpu.aten_capability": "DEFAULT"})
    log("before", **{"cpu.threads": "2"})
    assert describe_machine("train", WEIGHTS, WEIGHTS, same) == ()
    assert describe_machine("train", WEIGHTS, WEIGHTS, other) == (
        "cpu.aten_capability was not set, is DEFAULT",
    )

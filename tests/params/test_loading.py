from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from sentiment.errors import UserError
from sentiment.params import load_params
from sentiment.params.data import FilesSource
from sentiment.params.substitution import space_faults
from tests.project import ROOT


@pytest.fixture
def content() -> dict[str, Any]:
    return dict(YAML(typ="safe").load(ROOT / "params.yaml"))


def _faults(content: Any, folder: Path) -> str:
    path = folder / "params.yaml"
    YAML().dump(content, path)
    with pytest.raises(UserError) as raised:
        load_params(path)
    assert raised.value.exit_status == 2
    return str(raised.value).replace(str(path), "params.yaml")


def test_the_committed_params_have_no_fault() -> None:
    assert space_faults(load_params(ROOT / "params.yaml")) == []


def test_exponent_without_a_point_is_a_number_as_in_dvc(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text((ROOT / "params.yaml").read_text().replace("weight_decay: 0.0", "weight_decay: 1e-3"))
    assert load_params(path).train.optimizer.weight_decay == 0.001


@pytest.mark.parametrize(
    ("section", "key", "value", "fault"),
    [
        ("train", "epochs", 0, "train.epochs: greater than 0 (found 0)"),
        ("train", "epochs", "3", "train.epochs: a valid integer (found '3')"),
        ("train", "epochs", True, "train.epochs: a valid integer (found True)"),
        ("train", "average", 1.0, "train.average: less than 1 (found 1.0)"),
        ("train", "average", float("nan"), "train.average: a finite number (found nan)"),
        ("train", "batchsize", 3, "train.batchsize: unknown key; known here: "),
        ("train", "clip", {"kind": "norm"}, "train.clip.threshold: required, but not there"),
        ("train", "clip", {"kind": "none", "threshold": 1.0}, "train.clip.threshold: unknown key"),
        (
            "train",
            "clip",
            {"kind": "nrom"},
            "train.clip.kind: must be one of 'none', 'norm', 'value', 'percentile', 'adaptive', not 'nrom'",
        ),
        ("train", "clip", {"threshold": 1.0}, "train.clip.kind: required, but not there"),
        (
            "train",
            "clip",
            {"kind": "norm", "threshold": 0},
            "train.clip.threshold: greater than 0 (found 0)",
        ),
        (
            "train",
            "clip",
            {"kind": "value", "threshold": -1},
            "train.clip.threshold: greater than 0 (found -1)",
        ),
        (
            "train",
            "clip",
            {"kind": "adaptive", "threshold": 0},
            "train.clip.threshold: greater than 0 (found 0)",
        ),
        (
            "train",
            "clip",
            {"kind": "percentile", "percentile": 0},
            "train.clip.percentile: greater than 0 (found 0)",
        ),
        (
            "train",
            "clip",
            {"kind": "percentile", "percentile": 101},
            "train.clip.percentile: less than or equal to 100 (found 101)",
        ),
        (
            "train",
            "clip",
            {"kind": "percentile", "threshold": 1.0},
            "train.clip.percentile: required, but not there",
        ),
        (
            "train",
            "schedule",
            {"kind": "step", "warmup_steps": 0, "every_epochs": 3, "factor": 0.1},
            "train: schedule.every_epochs (3) must be less than epochs (3), or the learning rate never drops",
        ),
        (
            "train",
            "optimizer",
            {"kind": "adam", "learning_rate": 1e-3, "weight_decay": 0.0},
            "train.optimizer.l1: required, but not there",
        ),
        (
            "train",
            "optimizer",
            {"kind": "sgd", "learning_rate": 0.1, "weight_decay": 0.0, "l1": -1, "momentum": 0.9},
            "train.optimizer.l1: greater than or equal to 0 (found -1)",
        ),
        ("model", "hidden_units", 0, "model.hidden_units: greater than 0 (found 0)"),
        (
            "train",
            "schedule",
            {"kind": "noam", "warmup_steps": 0},
            "train.schedule.warmup_steps: greater than",
        ),
        ("model", "layers", 5, "model.layers: less than or equal to 4 (found 5)"),
        ("model", "pooling", "sum", "model.pooling: 'last', 'mean', 'max' or 'attention' (found 'sum')"),
        ("model", "hidden_unit", 8, "model.hidden_unit: unknown key"),
        (
            "download",
            "split",
            {"train": 0.7, "validation": 0.1, "test": 0.1},
            "download.split: train, validation",
        ),
        ("tokenize", "kind", "char", "tokenize.kind: 'word' or 'bpe' (found 'char')"),
        ("evaluate", "level", 95, "evaluate.level: less than 1 (found 95)"),
        ("tune", "trials", 0, "tune.trials: greater than 0"),
    ],
)
def test_fault_names_path_and_what_would_be_right(
    section: str, key: str, value: Any, fault: str, content: dict[str, Any], tmp_path: Path
) -> None:
    content[section][key] = value
    assert fault in _faults(content, tmp_path)


@pytest.mark.parametrize(
    ("name", "dimension", "fault"),
    [
        ("train.clip.treshold", {"kind": "float", "low": 0.1, "high": 1.0}, "no such parameter"),
        ("trane.epochs", {"kind": "int", "low": 1, "high": 2}, "only parameters of model and train"),
        ("download.seed", {"kind": "int", "low": 1, "high": 2}, "only parameters of model and train"),
        (
            "model.layers",
            {"kind": "int", "low": 0, "high": 2},
            "0: Input should be greater than or equal to 1",
        ),
        ("model.layers", {"kind": "int", "low": 2, "high": 1}, "low (2) must not exceed high (1)"),
        ("train.clip.threshold", {"kind": "float", "low": 0, "high": 1, "log": True}, "needs low above 0"),
        ("model.pooling", {"kind": "categorical", "choices": ["max"]}, "at least 2 items"),
        ("model.pooling", {"kind": "categorical", "choices": ["max", "sum"]}, "'sum': Input should be"),
        ("train.clip.kind", {"kind": "categorical", "choices": ["norm", "nrom"]}, "'nrom' is not one of"),
        (
            "model.dropout.head",
            {"kind": "float", "low": 0.5, "high": 1.5},
            "1.5: Input should be less than 1",
        ),
        (
            "train.average",
            {"kind": "floot", "low": 0.5, "high": 0.9},
            "must be one of 'float', 'int', 'categorical'",
        ),
    ],
)
def test_fault_in_the_search_space(
    name: str, dimension: Any, fault: str, content: dict[str, Any], tmp_path: Path
) -> None:
    content["tune"]["space"] = {name: dimension}
    reported = _faults(content, tmp_path)
    assert fault in reported
    assert f"tune.space.{name}" in reported


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        (
            {"chunk_tokens": None, "carry_state": True},
            "model: carry_state: true hands the state from chunk to",
        ),
        (
            {"pooling": "attention", "carry_state": True},
            "model: pooling: attention weighs all chunks together",
        ),
    ],
)
def test_shapes_that_do_not_go_together(
    changes: dict[str, Any], fault: str, content: dict[str, Any], tmp_path: Path
) -> None:
    content["model"].update(changes)
    assert fault in _faults(content, tmp_path)


def test_misspelt_key_gets_a_suggestion(content: dict[str, Any], tmp_path: Path) -> None:
    content["train"]["epoch"] = content["train"].pop("epochs")
    reported = _faults(content, tmp_path)
    assert "train.epochs: required, but not there" in reported
    assert "train.epoch: unknown key; did you mean 'epochs'?" in reported


def test_missing_section_is_named(content: dict[str, Any], tmp_path: Path) -> None:
    del content["tune"]
    assert "tune: required, but not there" in _faults(content, tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: [1, 2", "params.yaml:1: not valid YAML"),
        ("train:\n  epochs: 1\n  epochs: 2\n", "not valid YAML: found duplicate key"),
        ("", "expected sections"),
        ("- 1\n- 2\n", "expected sections"),
    ],
)
def test_file_that_is_not_a_mapping(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(text)
    with pytest.raises(UserError, match=r"params\.yaml") as raised:
        load_params()
    assert message in str(raised.value)


def test_missing_file_and_wrong_encoding(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file; run from the root"):
        load_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_bytes(b"train: \xff")
    with pytest.raises(UserError, match="not UTF-8"):
        load_params(tmp_path / "params.yaml")


def test_labels_need_no_quotes() -> None:
    source = {
        "kind": "files",
        "name": "phrases",
        "paths": ["train.tsv"],
        "columns": {"text": "Phrase", "label": "Sentiment"},
        "labels": {0: 0, 4: 1, True: 1, "n/a": None},
    }
    assert FilesSource.model_validate(source).labels == {"0": 0, "4": 1, "true": 1, "n/a": None}

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from ruamel.yaml import YAML

from sentiment.errors import UserError
from sentiment.params import load_params
from sentiment.params.data import FilesSource
from sentiment.params.search_space import validate_search_space
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
    assert validate_search_space(load_params(ROOT / "params.yaml")) == []


def test_exponent_without_a_point_is_a_number_as_in_dvc(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text((ROOT / "params.yaml").read_text().replace("weight_decay: 0.0", "weight_decay: 1e-3"))
    assert load_params(path).train.optimizer.weight_decay == 0.001


@pytest.mark.parametrize(
    ("limits", "fault"),
    [
        (
            {"similarity": 0.2, "max_share": 0.1},
            "download.checks.near_duplicates.similarity: greater than or equal to 0.3",
        ),
        (
            {"similarity": 0.5, "max_share": 1.1},
            "download.checks.near_duplicates.max_share: less than or equal to 1",
        ),
        ({"similarity": 0.5}, "download.checks.near_duplicates.max_share: required, but not there"),
        (
            {"similarity": 0.5, "max_share": 0, "share": 1},
            "download.checks.near_duplicates.share: unknown key",
        ),
    ],
)
def test_limits_of_near_duplicates(
    limits: dict[str, float], fault: str, content: dict[str, Any], tmp_path: Path
) -> None:
    content["download"]["checks"]["near_duplicates"] = limits
    assert fault in _faults(content, tmp_path)


@pytest.mark.parametrize(
    ("section", "key", "value", "fault"),
    [
        ("train", "epochs", 0, "train.epochs: greater than 0 (found 0)"),
        ("train", "epochs", "3", "train.epochs: a valid integer (found '3')"),
        ("train", "epochs", True, "train.epochs: a valid integer (found True)"),
        ("train", "ema_decay", 1.0, "train.ema_decay: less than 1 (found 1.0)"),
        ("train", "ema_decay", float("nan"), "train.ema_decay: a finite number (found nan)"),
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
        ("evaluate", "confidence_level", 95, "evaluate.confidence_level: less than 1 (found 95)"),
        ("tune", "trials", 0, "tune.trials: greater than 0"),
        (
            "tune",
            "sampler",
            {"kind": "tpee", "startup_trials": 1},
            "tune.sampler.kind: must be one of 'tpe', 'random', 'gp', 'grid', not 'tpee'",
        ),
        ("tune", "sampler", {"kind": "tpe"}, "tune.sampler.startup_trials: required, but not there"),
        (
            "tune",
            "sampler",
            {"kind": "random", "startup_trials": 1},
            "tune.sampler.startup_trials: unknown key",
        ),
        (
            "tune",
            "sampler",
            {"kind": "gp", "startup_trials": 0},
            "tune.sampler.startup_trials: greater than 0",
        ),
        (
            "tune",
            "pruner",
            {"kind": "medain"},
            "tune.pruner.kind: must be one of 'none', 'median', 'hyperband'",
        ),
        (
            "tune",
            "pruner",
            {"kind": "median", "startup_trials": 1, "warmup": 1.0},
            "tune.pruner.warmup: less than 1 (found 1.0)",
        ),
        (
            "tune",
            "pruner",
            {"kind": "hyperband", "reduction_factor": 1, "min_resource": 1},
            "tune.pruner.reduction_factor: greater than or equal to 2 (found 1)",
        ),
        (
            "tune",
            "pruner",
            {"kind": "hyperband", "reduction_factor": 3, "min_resource": 13},
            "tune.pruner.min_resource: at most 12, the checks of a training (train.epochs times "
            "tune.evaluations_per_epoch) (found 13)",
        ),
        ("tune", "evaluations_per_epoch", 0, "tune.evaluations_per_epoch: greater than 0 (found 0)"),
        ("tune", "warm_start", {"study": "old"}, "tune.warm_start.trials: required, but not there"),
        ("tune", "warm_start", {"study": "", "trials": 1}, "tune.warm_start.study: "),
        ("tune", "holdout", {"trials": 3, "share": 1.0}, "tune.holdout.share: less than 1 (found 1.0)"),
        ("tune", "holdout", {"trials": 0, "share": 0.5}, "tune.holdout.trials: greater than 0 (found 0)"),
        (
            "tune",
            "sampler",
            {"kind": "grid"},
            "tune.space.train.optimizer.learning_rate.points: required by tune.sampler.kind: grid",
        ),
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
        (
            "train.clip.threshold",
            {"kind": "float", "low": 0, "high": -1, "log": True},
            "low (0.0) must not exceed high (-1.0); a logarithmic range needs low above 0, not 0.0",
        ),
        ("model.pooling", {"kind": "categorical", "choices": ["max"]}, "at least 2 items"),
        ("model.pooling", {"kind": "categorical", "choices": ["max", "max"]}, "no choice twice"),
        ("model.layers", {"kind": "int", "low": 1, "high": 2, "points": 1}, "greater than or equal to 2"),
        ("model.pooling", {"kind": "categorical", "choices": ["max", "sum"]}, "'sum': Input should be"),
        ("train.clip.kind", {"kind": "categorical", "choices": ["norm", "nrom"]}, "'nrom' is not one of"),
        (
            "train.clip.kind",
            {"kind": "categorical", "choices": ["norm", "percentile"]},
            "'percentile' needs train.clip.percentile, which neither params.yaml nor tune.space has",
        ),
        (
            "train.optimizer.kind",
            {"kind": "categorical", "choices": ["adamw", "sgd"]},
            "'sgd' needs train.optimizer.momentum",
        ),
        (
            "model.dropout.head",
            {"kind": "float", "low": 0.5, "high": 1.5},
            "1.5: Input should be less than 1",
        ),
        (
            "train.ema_decay",
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


def test_every_fault_of_the_search_space_is_told_at_once(content: dict[str, Any], tmp_path: Path) -> None:
    content["tune"]["space"] = {
        "train.clip.treshold": {"kind": "float", "low": 0.1, "high": 1.0},
        "model.layers": {"kind": "int", "low": 2, "high": 1},
        "model.hidden_units": {"kind": "int", "low": 0, "high": 8},
        "train.optimizer.learning_rate": {"kind": "float", "low": 0.0, "high": 1.0, "log": True},
        "model.pooling": {"kind": "categorical", "choices": ["max"]},
    }
    reported = _faults(content, tmp_path)
    assert "params.yaml: 5 faults" in reported
    assert all(f"tune.space.{name}" in reported for name in content["tune"]["space"])


def test_faults_beside_the_space_leave_the_space_for_later(content: dict[str, Any], tmp_path: Path) -> None:
    """What a name in it stands for depends on the rest."""
    content["train"]["epochs"] = 0
    content["tune"]["space"] = {0: {"kind": "float", "low": 2.0, "high": 1.0}}
    assert "train.epochs: greater than 0" in _faults(content, tmp_path)
    content["train"]["epochs"] = 1
    assert "the key 0 must be text" in _faults(content, tmp_path)


GRID = {
    "train.clip.kind": {"kind": "categorical", "choices": ["none", "norm"]},
    "train.clip.threshold": {"kind": "float", "low": 0.1, "high": 1.0, "points": 10},
    "model.dropout.head": {"kind": "float", "low": 0.0, "high": 0.9, "points": 1000},
    "model.dropout.words": {"kind": "float", "low": 0.0, "high": 0.9, "points": 1000},
    "train.ema_decay": {"kind": "float", "low": 0.0, "high": 0.9, "points": 1000},
}


def test_grid_too_large_says_how_large_without_making_it(content: dict[str, Any], tmp_path: Path) -> None:
    content["tune"].update({"sampler": {"kind": "grid"}, "space": GRID})
    reported = _faults(content, tmp_path)
    assert (
        "tune.trials: the grid has 11,000,000,000 points, which with trial 0 make 11,000,000,001" in reported
    )


@pytest.mark.parametrize(("start", "trials"), [(0.2, 3), (0.25, 4)], ids=["in the grid", "beside it"])
def test_grid_may_be_as_large_as_the_trials(
    start: float, trials: int, content: dict[str, Any], tmp_path: Path
) -> None:
    content["model"]["dropout"]["head"] = start
    space = {"model.dropout.head": {"kind": "float", "low": 0.1, "high": 0.3, "points": 3}}
    content["tune"].update({"sampler": {"kind": "grid"}, "space": space, "trials": trials})
    YAML().dump(content, tmp_path / "params.yaml")
    load_params(tmp_path / "params.yaml")
    content["tune"]["trials"] = trials - 1
    assert f"which with trial 0 make {trials} trials" in _faults(content, tmp_path)


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


def test_key_under_a_former_name_gets_the_name_of_today(content: dict[str, Any], tmp_path: Path) -> None:
    checks = content["download"]["checks"]
    checks["repeats"] = checks.pop("duplicates")
    reported = _faults(content, tmp_path)
    assert "download.checks.duplicates: required, but not there" in reported
    assert "download.checks.repeats: unknown key; did you mean 'duplicates'?" in reported


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
        "labels": {0: 0, 4: 1, True: 1, 2: None},
    }
    assert FilesSource.model_validate(source).labels == {"0": 0, "4": 1, "true": 1, "2": None}


@pytest.mark.parametrize("labels", ["{1: 1, 1: 0}", "{1: 1, 1.0: 0}", "{good: 1, good: 0}"])
def test_key_that_stands_twice_in_yaml_is_refused(labels: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(f"download:\n  labels: {labels}\n")
    with pytest.raises(UserError, match=r"params\.yaml:2: not valid YAML: found duplicate key"):
        load_params(path)


def test_labels_that_dvc_cannot_sort_are_refused() -> None:
    source = {
        "kind": "files",
        "name": "mine",
        "paths": ["a.csv"],
        "columns": {"text": "text", "label": "label"},
        "labels": {0: 0, "positive": 1},
    }
    with pytest.raises(ValidationError, match="write all in quotes"):
        FilesSource.model_validate(source)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"columns": {"text": "text", "label": "text"}}, "different columns"),
        ({"escape_character": " "}, "no letter, digit or space"),
        ({"quote_character": "a"}, "no letter, digit or space"),
    ],
)
def test_settings_that_would_eat_text_are_refused(changes: dict[str, Any], message: str) -> None:
    source = {
        "kind": "files",
        "name": "mine",
        "paths": ["a.csv"],
        "columns": {"text": "text", "label": "label"},
        "labels": {0: 0, 1: 1},
    }
    with pytest.raises(ValidationError, match=message):
        FilesSource.model_validate({**source, **changes})

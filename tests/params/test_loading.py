from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from ruamel.yaml import YAML

from sentiment.errors import UserError
from sentiment.params import load_params
from sentiment.params.search_space import validate_search_space
from sentiment.params.sources import FilesSource
from tests.project import ROOT


@pytest.fixture
def content() -> dict[str, Any]:
    return dict(YAML(typ="safe").load(ROOT / "params.yaml"))


def _load_errors(content: Any, folder: Path) -> str:
    path = folder / "params.yaml"
    YAML().dump(content, path)
    with pytest.raises(UserError) as raised:
        load_params(path)
    assert raised.value.exit_status == 2
    return str(raised.value).replace(str(path), "params.yaml")


def test_committed_params_are_valid() -> None:
    assert validate_search_space(load_params(ROOT / "params.yaml")) == []


def test_exponent_without_a_point_is_a_number_as_in_dvc(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text((ROOT / "params.yaml").read_text().replace("weight_decay: 0.0", "weight_decay: 1e-3"))
    assert load_params(path).train.optimizer.weight_decay == 0.001


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (
            {"similarity": 0.2, "max_share": 0.1},
            "download.checks.near_duplicates.similarity: must be greater than or equal to 0.3",
        ),
        (
            {"similarity": 0.5, "max_share": 1.1},
            "download.checks.near_duplicates.max_share: must be less than or equal to 1",
        ),
        ({"similarity": 0.5}, "download.checks.near_duplicates.max_share: required key is missing"),
        (
            {"similarity": 0.5, "max_share": 0, "share": 1},
            "download.checks.near_duplicates.share: unknown key",
        ),
    ],
)
def test_near_duplicate_limits_are_validated(
    limits: dict[str, float], message: str, content: dict[str, Any], tmp_path: Path
) -> None:
    content["download"]["checks"]["near_duplicates"] = limits
    assert message in _load_errors(content, tmp_path)


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("train", "epochs", 0, "train.epochs: must be greater than 0 (found 0)"),
        ("train", "epochs", "3", "train.epochs: must be a valid integer (found '3')"),
        ("train", "epochs", True, "train.epochs: must be a valid integer (found True)"),
        ("train", "ema_decay", 1.0, "train.ema_decay: must be less than 1 (found 1.0)"),
        ("train", "ema_decay", float("nan"), "train.ema_decay: must be a finite number (found nan)"),
        ("train", "batchsize", 3, "train.batchsize: unknown key; valid keys: "),
        ("train", "clip", {"kind": "norm"}, "train.clip.threshold: required key is missing"),
        ("train", "clip", {"kind": "none", "threshold": 1.0}, "train.clip.threshold: unknown key"),
        (
            "train",
            "clip",
            {"kind": "nrom"},
            "train.clip.kind: must be one of 'none', 'norm', 'value', 'percentile', 'adaptive', not 'nrom'",
        ),
        ("train", "clip", {"threshold": 1.0}, "train.clip.kind: required key is missing"),
        (
            "train",
            "clip",
            {"kind": "norm", "threshold": 0},
            "train.clip.threshold: must be greater than 0 (found 0)",
        ),
        (
            "train",
            "clip",
            {"kind": "value", "threshold": -1},
            "train.clip.threshold: must be greater than 0 (found -1)",
        ),
        (
            "train",
            "clip",
            {"kind": "adaptive", "threshold": 0},
            "train.clip.threshold: must be greater than 0 (found 0)",
        ),
        (
            "train",
            "clip",
            {"kind": "percentile", "percentile": 0},
            "train.clip.percentile: must be greater than 0 (found 0)",
        ),
        (
            "train",
            "clip",
            {"kind": "percentile", "percentile": 101},
            "train.clip.percentile: must be less than or equal to 100 (found 101)",
        ),
        (
            "train",
            "clip",
            {"kind": "percentile", "threshold": 1.0},
            "train.clip.percentile: required key is missing",
        ),
        (
            "train",
            "schedule",
            {"kind": "step", "warmup_steps": 0, "every_epochs": 2, "factor": 0.1},
            "train: schedule.every_epochs (2) must be less than epochs (2), or the learning rate",
        ),
        (
            "train",
            "optimizer",
            {"kind": "adam", "learning_rate": 1e-3, "weight_decay": 0.0},
            "train.optimizer.l1: required key is missing",
        ),
        (
            "train",
            "optimizer",
            {"kind": "sgd", "learning_rate": 0.1, "weight_decay": 0.0, "l1": -1, "momentum": 0.9},
            "train.optimizer.l1: must be greater than or equal to 0 (found -1)",
        ),
        ("model", "hidden_units", 0, "model.hidden_units: must be greater than 0 (found 0)"),
        (
            "train",
            "schedule",
            {"kind": "noam", "warmup_steps": 0},
            "train.schedule.warmup_steps: must be greater than",
        ),
        ("model", "layers", 5, "model.layers: must be less than or equal to 4 (found 5)"),
        (
            "model",
            "pooling",
            "sum",
            "model.pooling: must be 'last', 'mean', 'max' or 'attention' (found 'sum')",
        ),
        ("model", "hidden_unit", 8, "model.hidden_unit: unknown key"),
        (
            "download",
            "split",
            {"train": 0.7, "validation": 0.1, "holdout": 0.1, "test": 0.2},
            "download.split: train, validation, holdout and test must sum to 1",
        ),
        ("tokenize", "kind", "char", "tokenize.kind: must be 'word' or 'bpe' (found 'char')"),
        ("evaluate", "confidence_level", 95, "evaluate.confidence_level: must be less than 1 (found 95)"),
        (
            "evaluate",
            "threshold",
            0.5,
            "evaluate.threshold: must be a section with the keys kind, precision, value (found 0.5)",
        ),
        (
            "evaluate",
            "limits",
            {"behaviour": {"sarcasm": 0.5}},
            "evaluate.limits.behaviour.sarcasm: unknown key; valid keys: 'minimum_functionality'",
        ),
        (
            "evaluate",
            "limits",
            {"behaviour": {"negation": 1.5}},
            "evaluate.limits.behaviour.negation: must be less than or equal to 1 (found 1.5)",
        ),
        ("tune", "trials", 0, "tune.trials: must be greater than 0"),
        (
            "tune",
            "sampler",
            {"kind": "tpee", "startup_trials": 1},
            "tune.sampler.kind: must be one of 'tpe', 'random', 'gp', 'grid', not 'tpee'",
        ),
        ("tune", "sampler", {"kind": "tpe"}, "tune.sampler.startup_trials: required key is missing"),
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
            "tune.sampler.startup_trials: must be greater than 0",
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
            "tune.pruner.warmup: must be less than 1 (found 1.0)",
        ),
        (
            "tune",
            "pruner",
            {"kind": "hyperband", "reduction_factor": 1, "min_resource": 1},
            "tune.pruner.reduction_factor: must be greater than or equal to 2 (found 1)",
        ),
        (
            "tune",
            "pruner",
            {"kind": "hyperband", "reduction_factor": 3, "min_resource": 9},
            "tune.pruner.min_resource: must be at most 8, the intermediate evaluations of a trial "
            "(train.epochs times tune.evaluations_per_epoch) (found 9)",
        ),
        ("tune", "evaluations_per_epoch", 0, "tune.evaluations_per_epoch: must be greater than 0 (found 0)"),
        ("tune", "warm_start", {"study": "old"}, "tune.warm_start.trials: required key is missing"),
        ("tune", "warm_start", {"study": "", "trials": 1}, "tune.warm_start.study: "),
        (
            "tune",
            "sampler",
            {"kind": "grid"},
            "learning_rate.points: required key is missing, needed by tune.sampler.kind: grid",
        ),
    ],
)
def test_validation_error_names_path_and_expected_value(
    section: str, key: str, value: Any, message: str, content: dict[str, Any], tmp_path: Path
) -> None:
    content[section][key] = value
    assert message in _load_errors(content, tmp_path)


@pytest.mark.parametrize(
    ("name", "dimension", "message"),
    [
        ("train.clip.treshold", {"kind": "float", "low": 0.1, "high": 1.0}, "no such parameter"),
        ("trane.epochs", {"kind": "int", "low": 1, "high": 2}, "only parameters of model and train"),
        ("download.seed", {"kind": "int", "low": 1, "high": 2}, "only parameters of model and train"),
        (
            "model.layers",
            {"kind": "int", "low": 0, "high": 2},
            "0: must be greater than or equal to 1",
        ),
        ("model.layers", {"kind": "int", "low": 2, "high": 1}, "low (2) must not exceed high (1)"),
        ("train.clip.threshold", {"kind": "float", "low": 0, "high": 1, "log": True}, "needs low above 0"),
        (
            "train.clip.threshold",
            {"kind": "float", "low": 0, "high": -1, "log": True},
            "low (0.0) must not exceed high (-1.0); a logarithmic range needs low above 0, not 0.0",
        ),
        ("model.pooling", {"kind": "categorical", "choices": ["max"]}, "at least 2 items"),
        ("model.pooling", {"kind": "categorical", "choices": ["max", "max"]}, "choices must be distinct"),
        ("model.layers", {"kind": "int", "low": 1, "high": 2, "points": 1}, "greater than or equal to 2"),
        ("model.pooling", {"kind": "categorical", "choices": ["max", "sum"]}, "'sum': must be"),
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
            "1.5: must be less than 1",
        ),
        (
            "train.ema_decay",
            {"kind": "floot", "low": 0.5, "high": 0.9},
            "must be one of 'float', 'int', 'categorical'",
        ),
    ],
)
def test_validation_error_in_search_space(
    name: str, dimension: Any, message: str, content: dict[str, Any], tmp_path: Path
) -> None:
    content["tune"]["space"] = {name: dimension}
    reported = _load_errors(content, tmp_path)
    assert message in reported
    assert f"tune.space.{name}" in reported


def test_all_validation_errors_of_search_space_are_reported_at_once(
    content: dict[str, Any], tmp_path: Path
) -> None:
    content["tune"]["space"] = {
        "train.clip.treshold": {"kind": "float", "low": 0.1, "high": 1.0},
        "model.layers": {"kind": "int", "low": 2, "high": 1},
        "model.hidden_units": {"kind": "int", "low": 0, "high": 8},
        "train.optimizer.learning_rate": {"kind": "float", "low": 0.0, "high": 1.0, "log": True},
        "model.pooling": {"kind": "categorical", "choices": ["max"]},
    }
    reported = _load_errors(content, tmp_path)
    assert "params.yaml: 5 validation errors" in reported
    assert all(f"tune.space.{name}" in reported for name in content["tune"]["space"])


def test_search_space_is_validated_after_the_other_parameters(
    content: dict[str, Any], tmp_path: Path
) -> None:
    """What a path in the search space refers to depends on the other parameters."""
    content["train"]["epochs"] = 0
    content["tune"]["space"] = {0: {"kind": "float", "low": 2.0, "high": 1.0}}
    assert "train.epochs: must be greater than 0" in _load_errors(content, tmp_path)
    content["train"]["epochs"] = 1
    assert "the key 0 must be a string" in _load_errors(content, tmp_path)


GRID = {
    "train.clip.kind": {"kind": "categorical", "choices": ["none", "norm"]},
    "train.clip.threshold": {"kind": "float", "low": 0.1, "high": 1.0, "points": 10},
    "model.dropout.head": {"kind": "float", "low": 0.0, "high": 0.9, "points": 1000},
    "model.dropout.words": {"kind": "float", "low": 0.0, "high": 0.9, "points": 1000},
    "train.ema_decay": {"kind": "float", "low": 0.0, "high": 0.9, "points": 1000},
}


def test_size_of_large_grid_is_computed_without_enumerating_it(
    content: dict[str, Any], tmp_path: Path
) -> None:
    content["tune"].update({"sampler": {"kind": "grid"}, "space": GRID})
    reported = _load_errors(content, tmp_path)
    assert (
        "tune.trials: must be at least 11,000,000,001, because the grid has 11,000,000,000 points" in reported
    )


@pytest.mark.parametrize(
    ("start", "trials"), [(0.2, 3), (0.25, 4)], ids=["trial 0 in the grid", "trial 0 outside the grid"]
)
def test_grid_may_have_as_many_points_as_trials(
    start: float, trials: int, content: dict[str, Any], tmp_path: Path
) -> None:
    content["model"]["dropout"]["head"] = start
    space = {"model.dropout.head": {"kind": "float", "low": 0.1, "high": 0.3, "points": 3}}
    content["tune"].update({"sampler": {"kind": "grid"}, "space": space, "trials": trials})
    YAML().dump(content, tmp_path / "params.yaml")
    load_params(tmp_path / "params.yaml")
    content["tune"]["trials"] = trials - 1
    assert f"tune.trials: must be at least {trials}, because" in _load_errors(content, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"chunk_tokens": None, "carry_state": True},
            "model: carry_state: true carries the LSTM state",
        ),
        (
            {"pooling": "attention", "carry_state": True},
            "model: pooling: attention cannot be combined with carry_state: true",
        ),
    ],
)
def test_incompatible_model_parameters(
    changes: dict[str, Any], message: str, content: dict[str, Any], tmp_path: Path
) -> None:
    content["model"].update(changes)
    assert message in _load_errors(content, tmp_path)


def test_misspelt_key_gets_a_suggestion(content: dict[str, Any], tmp_path: Path) -> None:
    content["train"]["epoch"] = content["train"].pop("epochs")
    reported = _load_errors(content, tmp_path)
    assert "train.epochs: required key is missing" in reported
    assert "train.epoch: unknown key; did you mean 'epochs'?" in reported


@pytest.mark.parametrize(
    ("section", "former", "name"),
    [
        ("download.checks", "shortest", "min_characters"),
        ("download.checks", "longest", "max_characters"),
        ("download.checks", "repeats", "duplicates"),
        ("download.checks.near_duplicates", "most", "max_share"),
        ("tokenize", "unknown_rate", "oov_rate"),
        ("model", "keep", "truncation"),
        ("model", "embedding_units", "embedding_dim"),
        ("model.ngrams", "share", "weight"),
        ("train", "average", "ema_decay"),
        ("train.schedule", "end_share", "end_factor"),
        ("tune", "checks_per_epoch", "evaluations_per_epoch"),
        ("evaluate", "level", "confidence_level"),
    ],
)
def test_former_name_of_a_parameter_gets_the_new_name(
    section: str, former: str, name: str, content: dict[str, Any], tmp_path: Path
) -> None:
    parent = content
    for key in section.split("."):
        parent = parent[key]
    parent[former] = parent.pop(name)
    reported = _load_errors(content, tmp_path)
    assert f"{section}.{name}: required key is missing" in reported
    assert f"{section}.{former}: unknown key; did you mean '{name}'?" in reported


@pytest.mark.parametrize("removed", ["holdout", "confirm"])
def test_file_with_the_former_holdout_fold_gets_an_explanation(
    removed: str, content: dict[str, Any], tmp_path: Path
) -> None:
    content["tune"][removed] = {"trials": 3, "share": 0.4}
    content["download"]["split"] = {"train": 0.7, "validation": 0.1, "test": 0.2}
    reported = _load_errors(content, tmp_path)
    assert f"tune.{removed}: unknown key; remove it: the trial with the highest validation AUC" in reported
    assert "download.split.holdout: required key is missing; it is the fraction of reviews" in reported
    assert "2 validation errors" in reported


def test_missing_section_is_named(content: dict[str, Any], tmp_path: Path) -> None:
    del content["tune"]
    assert "tune: required key is missing" in _load_errors(content, tmp_path)


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
    with pytest.raises(UserError, match="no such file; run the command in the root"):
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
def test_duplicate_yaml_key_is_an_error(labels: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(f"download:\n  labels: {labels}\n")
    with pytest.raises(UserError, match=r"params\.yaml:2: not valid YAML: found duplicate key"):
        load_params(path)


def test_mixed_label_keys_are_an_error() -> None:
    source = {
        "kind": "files",
        "name": "mine",
        "paths": ["a.csv"],
        "columns": {"text": "text", "label": "label"},
        "labels": {0: 0, "positive": 1},
    }
    with pytest.raises(ValidationError, match="write all keys in quotes"):
        FilesSource.model_validate(source)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"columns": {"text": "text", "label": "text"}}, "different columns"),
        ({"escape_character": " "}, "must not be a letter, digit or space"),
        ({"quote_character": "a"}, "must not be a letter, digit or space"),
    ],
)
def test_columns_and_quoting_that_corrupt_texts_are_errors(changes: dict[str, Any], message: str) -> None:
    source = {
        "kind": "files",
        "name": "mine",
        "paths": ["a.csv"],
        "columns": {"text": "text", "label": "label"},
        "labels": {0: 0, 1: 1},
    }
    with pytest.raises(ValidationError, match=message):
        FilesSource.model_validate({**source, **changes})

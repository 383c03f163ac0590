"""Parameters of a trial, drawn from the search space in params.yaml."""

from typing import Any

import optuna
import pytest

from sentiment.errors import UserError
from sentiment.params import Params, load_params
from sentiment.params.search_space import replace_values
from sentiment.tuning.trial_params import get_starting_values, suggest_params
from tests.project import ROOT


def _params(space: dict[str, Any]) -> Params:
    content = load_params(ROOT / "params.yaml").model_dump()
    content["tune"]["space"] = space
    return Params.model_validate(content)


def _suggested(params: Params, **fixed: Any) -> Params:
    study = optuna.create_study()
    study.enqueue_trial(fixed)
    return suggest_params(study.ask(), params)


def _in_trial(params: Params) -> Params:
    """Return the parameters with the threads of a trial."""
    return replace_values(params, {"train.threads": params.tune.threads})


def test_first_trial_is_the_configuration_itself() -> None:
    params = _params(load_params(ROOT / "params.yaml").model_dump()["tune"]["space"])
    assert _suggested(params, **get_starting_values(params)) == _in_trial(params)


def test_drawn_values_replace_those_of_params() -> None:
    params = _params(
        {
            "train.optimizer.learning_rate": {"kind": "float", "low": 1e-4, "high": 1e-1, "log": True},
            "model.layers": {"kind": "int", "low": 1, "high": 3},
            "model.head.activation": {"kind": "categorical", "choices": ["relu", "tanh"]},
        }
    )
    drawn = {"train.optimizer.learning_rate": 0.02, "model.layers": 3, "model.head.activation": "tanh"}
    trial = _suggested(params, **drawn)
    assert trial.train.optimizer.learning_rate == 0.02
    assert trial.model.layers == 3
    assert trial.model.head.activation == "tanh"
    assert trial.model.dropout == params.model.dropout


def test_threshold_is_drawn_only_where_the_kind_of_clipping_has_one() -> None:
    params = _params(
        {
            "train.clip.threshold": {"kind": "float", "low": 0.1, "high": 10.0},
            "train.clip.kind": {"kind": "categorical", "choices": ["none", "norm", "value"]},
        }
    )
    assert _suggested(params, **{"train.clip.kind": "none"}).train.clip.model_dump() == {"kind": "none"}
    by_value = _suggested(params, **{"train.clip.kind": "value", "train.clip.threshold": 0.3})
    assert by_value.train.clip.model_dump() == {"kind": "value", "threshold": 0.3}


def test_percentile_and_threshold_are_drawn_each_for_its_own_kind() -> None:
    params = _params(
        {
            "train.clip.kind": {"kind": "categorical", "choices": ["norm", "percentile", "adaptive"]},
            "train.clip.threshold": {"kind": "float", "low": 0.01, "high": 10.0, "log": True},
            "train.clip.percentile": {"kind": "float", "low": 5.0, "high": 100.0},
        }
    )
    assert _suggested(params, **get_starting_values(params)) == _in_trial(params)
    by_percentile = _suggested(params, **{"train.clip.kind": "percentile", "train.clip.percentile": 25.0})
    assert by_percentile.train.clip.model_dump() == {"kind": "percentile", "percentile": 25.0}
    by_unit = _suggested(params, **{"train.clip.kind": "adaptive", "train.clip.threshold": 0.02})
    assert by_unit.train.clip.model_dump() == {"kind": "adaptive", "threshold": 0.02}


def test_range_is_widened_to_hold_the_value_of_trial_zero() -> None:
    params = _params(
        {
            "train.clip.threshold": {"kind": "float", "low": 2.0, "high": 4.0},
            "model.hidden_units": {"kind": "categorical", "choices": [8, 16]},
        }
    )
    start = get_starting_values(params)
    assert _suggested(params, **start) == _in_trial(params)


def test_error_for_an_invalid_combination_names_the_drawn_values() -> None:
    """A variant with a required parameter that is neither in params.yaml nor in the search space."""
    params = _params({"train.optimizer.kind": {"kind": "categorical", "choices": ["adamw", "sgd"]}})
    with pytest.raises(UserError, match=r"train\.optimizer\.kind = 'sgd'.*momentum"):
        _suggested(params, **{"train.optimizer.kind": "sgd"})

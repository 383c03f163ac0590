import pytest
from pydantic import ValidationError

from sentiment.params import Params, load_params
from sentiment.params.search_space import is_applicable, replace_values
from tests.project import ROOT


@pytest.fixture
def params() -> Params:
    return load_params(ROOT / "params.yaml")


def test_values_replace_parameters_at_their_paths(params: Params) -> None:
    changed = replace_values(params, {"model.dropout.head": 0.5, "train.clip.threshold": 2.0})
    assert (changed.model.dropout.head, changed.train.clip.threshold) == (0.5, 2.0)
    assert changed.train.optimizer == params.train.optimizer


def test_new_kind_removes_keys_of_the_old_kind(params: Params) -> None:
    assert replace_values(params, {"train.clip.kind": "none"}).train.clip.model_dump() == {"kind": "none"}


def test_kinds_of_clipping_replace_one_another(params: Params) -> None:
    by_percentile = replace_values(params, {"train.clip.kind": "percentile", "train.clip.percentile": 10.0})
    assert by_percentile.train.clip.model_dump() == {"kind": "percentile", "percentile": 10.0}
    by_unit = replace_values(by_percentile, {"train.clip.kind": "adaptive", "train.clip.threshold": 0.01})
    assert by_unit.train.clip.model_dump() == {"kind": "adaptive", "threshold": 0.01}
    assert not is_applicable(params, "train.clip.percentile", {})
    assert is_applicable(params, "train.clip.percentile", {"train.clip.kind": "percentile"})
    assert not is_applicable(by_percentile, "train.clip.threshold", {})


def test_threshold_is_sampled_only_if_clipping_has_one(params: Params) -> None:
    assert is_applicable(params, "train.clip.threshold", {})
    assert is_applicable(params, "train.clip.threshold", {"train.clip.kind": "value"})
    assert not is_applicable(params, "train.clip.threshold", {"train.clip.kind": "none"})


def test_value_out_of_range_is_an_error(params: Params) -> None:
    with pytest.raises(ValidationError):
        replace_values(params, {"model.layers": 9})

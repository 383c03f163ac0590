"""Names of layers."""

import pytest

from sentiment.model.classifier import SentimentClassifier, get_layer_name
from tests.model.small_model import model_params


def test_every_parameter_belongs_to_a_named_layer() -> None:
    model = SentimentClassifier(model_params(layers=2, head={"units": 3, "activation": "relu"}), 50)
    assert {get_layer_name(name) for name, _ in model.named_parameters()} == {
        "embedding",
        "lstm_1_forward",
        "lstm_1_backward",
        "lstm_2_forward",
        "lstm_2_backward",
        "head",
    }


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("layers.0.directions.0.weight_hh_l0", "lstm_1_forward"),
        ("layers.3.directions.1", "lstm_4_backward"),
        ("head.1.bias", "head"),
    ],
)
def test_name_of_a_layer(module: str, name: str) -> None:
    assert get_layer_name(module) == name

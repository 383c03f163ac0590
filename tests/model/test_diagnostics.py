"""Recomputed gate values compared with the LSTM and with plain NumPy."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from sentiment.model.classifier import SentimentClassifier
from sentiment.model.diagnostics import (
    GATES,
    SAMPLE_SIZE,
    compute_gate_preactivations,
    measure_gate_saturation,
    shift_states,
)
from sentiment.params.data import TokenizeParams
from sentiment.tokens.batches import Truncation
from sentiment.tokens.encoding import encode
from sentiment.tokens.token_store import TokenizedReviews
from sentiment.tokens.vocabulary import train_tokenizer
from tests.model.small_model import model_params

VOCABULARY = 300


@pytest.fixture(scope="module")
def tokens(reviews: pa.Table) -> TokenizedReviews:
    """A split of the sample size."""
    reviews = reviews.slice(0, SAMPLE_SIZE)
    params = TokenizeParams(
        kind="word", vocabulary_size=VOCABULARY, min_frequency=1, lowercase=True, oov_rate=1.0
    )
    return encode(train_tokenizer(reviews["text"].to_pylist(), params), reviews)


def test_cell_equations_on_recomputed_gates_give_the_lstm_outputs() -> None:
    torch.manual_seed(0)
    lstm = nn.LSTM(6, 5, batch_first=True)
    inputs = torch.randn(1, 7, 6)
    with torch.no_grad():
        states, _ = lstm(inputs)
        before, _ = shift_states(states, torch.tensor([7]))
        gates = compute_gate_preactivations(lstm, inputs[0], before[0])
    cell = torch.zeros(5)
    for token in range(7):
        gate = dict(zip(GATES, gates[token], strict=True))
        cell = gate["forget"].sigmoid() * cell + gate["input"].sigmoid() * gate["candidate"].tanh()
        torch.testing.assert_close(gate["output"].sigmoid() * cell.tanh(), states[0, token])


def test_state_before_a_token_is_its_neighbours_and_zero_at_the_start() -> None:
    states = torch.tensor([[[1.0], [2.0], [3.0]], [[4.0], [5.0], [9.0]]])  # the 9 is padding
    forwards, backwards = shift_states(states, torch.tensor([3, 2]))
    assert forwards[..., 0].tolist() == [[0, 1, 2], [0, 4, 5]]
    assert backwards[..., 0].tolist() == [[2, 3, 0], [5, 0, 0]]


@pytest.mark.parametrize(
    "shape",
    [
        {"bidirectional": False},
        {},
        {"layers": 2},
        {"chunk_tokens": 8},
        {"chunk_tokens": 8, "layers": 2, "truncation": "tail"},
    ],
    ids=str,
)
def test_saturation_equals_a_token_by_token_reference(
    shape: dict[str, Any], tokens: TokenizedReviews
) -> None:
    """The reference reads each review and chunk alone, without batching, padding or reordering."""
    model = _saturated_model(**shape)
    measured = measure_gate_saturation(model, tokens)
    expected = _reference_saturation(model, tokens)
    assert measured.keys() == expected.keys()
    for layer, gates in expected.items():
        assert measured[layer] == pytest.approx(gates, abs=1e-4), layer
        assert all(0.01 < fraction < 0.99 for fraction in gates.values()), (
            "vacuous: all or none are saturated"
        )


def test_saturation_is_counted_past_the_thresholds(tokens: TokenizedReviews) -> None:
    model = _saturated_model(bidirectional=False)
    (lstm,) = model.layers[0].directions
    with torch.no_grad():
        for weight in lstm.parameters():
            weight.zero_()
        lstm.bias_ih_l0.view(4, -1)[GATES.index("forget")] = 3.0  # sigmoid 0.953
        lstm.bias_ih_l0.view(4, -1)[GATES.index("candidate")] = -1.8  # tanh -0.947
    assert measure_gate_saturation(model, tokens)["lstm_1_forward"] == {
        "input": 0.0,
        "forget": 1.0,
        "candidate": 0.0,
        "output": 0.0,
    }


def test_measurement_leaves_the_model_unchanged(tokens: TokenizedReviews) -> None:
    model = _saturated_model().train()
    measure_gate_saturation(model, tokens)
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_sample_is_spread_over_a_split_sorted_by_label(tokens: TokenizedReviews) -> None:
    """Two halves of different saturation; the sample gives their mean."""
    one, other = tokens[0][:5], tokens[1][:5]
    split = [one] * SAMPLE_SIZE + [other] * SAMPLE_SIZE
    model = _saturated_model()
    fractions = [
        measure_gate_saturation(model, TokenizedReviews.from_lists(ids, np.zeros(len(ids))))[
            "lstm_1_forward"
        ]["input"]
        for ids in (split, [one], [other])
    ]
    assert fractions[1] != fractions[2]
    assert fractions[0] == pytest.approx((fractions[1] + fractions[2]) / 2)


def test_split_without_tokens_has_no_saturation() -> None:
    empty = TokenizedReviews.from_lists([[], []], [0, 1])
    assert set(measure_gate_saturation(_saturated_model(), empty)["lstm_1_backward"].values()) == {0.0}


def _saturated_model(**shape: Any) -> SentimentClassifier:
    """Return a model with large weights, so that many gates saturate."""
    torch.manual_seed(0)
    model = SentimentClassifier(model_params(**shape), VOCABULARY).eval()
    with torch.no_grad():
        model.embedding.weight.mul_(10)
        for weight in model.layers.parameters():
            weight.mul_(6)
    return model


def _reference_saturation(
    model: SentimentClassifier, tokens: TokenizedReviews
) -> dict[str, dict[str, float]]:
    params = model.params
    truncation = Truncation(params.max_tokens, params.truncation)
    seen: dict[str, list[NDArray[np.bool_]]] = {}
    for review in range(len(tokens)):
        ids = torch.from_numpy(truncation(tokens[review]).astype(np.int64))[None]
        with torch.no_grad():
            embedded = model.embedding(ids)[0].double().numpy()
        chunks = math.ceil(len(embedded) / (params.chunk_tokens or len(embedded)))
        chunk = math.ceil(len(embedded) / chunks)
        for start in range(0, len(embedded), chunk):
            states = embedded[start : start + chunk]
            for depth, layer in enumerate(model.layers, start=1):
                sides = []
                for lstm, name, order in zip(
                    layer.directions, ("forward", "backward"), (1, -1), strict=False
                ):
                    outputs, saturated = _reference_lstm(lstm, states[::order])
                    seen.setdefault(f"lstm_{depth}_{name}", []).append(saturated)
                    sides.append(outputs[::order])
                states = np.concatenate(sides, axis=1)
    return {
        name: dict(zip(GATES, np.concatenate(values).mean(axis=(0, 2)), strict=True))
        for name, values in seen.items()
    }


def _reference_lstm(
    lstm: nn.LSTM, inputs: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return outputs, shape (tokens, units), and saturation, shape (tokens, gates, units)."""
    from_input, from_state, *biases = (weight.detach().double().numpy() for weight in lstm.parameters())
    hidden = cell = np.zeros(lstm.hidden_size)
    outputs, saturated = [], []
    for token in inputs:
        stacked = from_input @ token + from_state @ hidden + sum(biases)
        in_, forget, candidate, out = stacked.reshape(4, -1)
        in_, forget, out = (1 / (1 + np.exp(-gate)) for gate in (in_, forget, out))
        candidate = np.tanh(candidate)
        cell = forget * cell + in_ * candidate
        hidden = out * np.tanh(cell)
        outputs.append(hidden)
        saturated.append(
            np.array(
                [
                    (in_ < 0.05) | (in_ > 0.95),
                    (forget < 0.05) | (forget > 0.95),
                    np.abs(candidate) > 0.95,
                    (out < 0.05) | (out > 0.95),
                ]
            )
        )
    return np.array(outputs), np.array(saturated)

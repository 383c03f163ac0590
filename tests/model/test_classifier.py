"""The classifier's logits for any review, alone or in any batch."""

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from sentiment.model.classifier import SentimentClassifier
from sentiment.tokens.vocabulary import PADDING_ID, UNKNOWN_ID
from tests.model.small_model import model_params

VOCABULARY = 50
LENGTHS = [1, 3, 8, 9, 16, 23]
SHAPES = [
    {"pooling": pooling, "bidirectional": both, "chunk_tokens": chunk, "carry_state": carry, "layers": layers}
    for pooling, both, (chunk, carry), layers in product(
        ("last", "mean", "max", "attention"),
        (False, True),
        ((None, False), (8, False), (8, True)),
        (1, 2),
    )
    if not (pooling == "attention" and carry)  # invalid
]


def _classifier(**changes: Any) -> SentimentClassifier:
    torch.manual_seed(0)
    return SentimentClassifier(model_params(**changes), VOCABULARY).eval()


def _batch(lengths: list[int]) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    ids = torch.full((len(lengths), max(*lengths, 1)), PADDING_ID)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.randint(2, VOCABULARY, (length,))
    return ids, torch.tensor(lengths)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_logit_does_not_depend_on_the_batch(shape: dict[str, Any]) -> None:
    model = _classifier(**shape)
    ids, lengths = _batch(LENGTHS)
    together = model(ids, lengths)
    alone = [model(ids[row : row + 1, :length], torch.tensor([length])) for row, length in enumerate(LENGTHS)]
    torch.testing.assert_close(together, torch.cat(alone))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_padding_is_never_read(shape: dict[str, Any]) -> None:
    model = _classifier(**shape)
    ids, lengths = _batch(LENGTHS)
    other = torch.where(ids == PADDING_ID, UNKNOWN_ID + 5, ids)
    torch.testing.assert_close(model(other, lengths), model(ids, lengths))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_empty_review_has_the_logit_of_one_padding_token(shape: dict[str, Any]) -> None:
    model = _classifier(**shape)
    ids, lengths = _batch([0, 5])
    logits = model(ids, lengths)
    assert torch.isfinite(logits).all()
    torch.testing.assert_close(logits[:1], model(torch.tensor([[PADDING_ID]]), torch.tensor([1])))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("lengths", [[0], [1], [0, 0, 0], [1, 1], [8], [9]], ids=str)
def test_the_smallest_reviews_and_batches_train(lengths: list[int], shape: dict[str, Any]) -> None:
    """Empty reviews and reviews of one token or chunk; batches of one review and of empty reviews."""
    model = _classifier(**shape).train()
    logits = model(*_batch(lengths))
    assert logits.shape == (len(lengths),)
    logits.sum().backward()
    gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
    assert torch.isfinite(logits).all()
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_chunks_are_read_independently() -> None:
    """With unidirectional `last` pooling, only the last chunk affects the logit."""
    model = _classifier(pooling="last", bidirectional=False, chunk_tokens=8)
    ids, lengths = _batch([16])
    changed = ids.clone()
    changed[0, 3] = (ids[0, 3] + 1) % VOCABULARY
    torch.testing.assert_close(model(changed, lengths), model(ids, lengths), rtol=0, atol=0)
    changed[0, 12] = (ids[0, 12] + 1) % VOCABULARY
    assert not torch.equal(model(changed, lengths), model(ids, lengths))


@pytest.mark.parametrize("pooling", ["last", "mean", "max"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_carried_state_gives_the_logits_of_the_whole_review(
    pooling: str, layers: int, bidirectional: bool
) -> None:
    shape = {"pooling": pooling, "layers": layers, "bidirectional": bidirectional}
    carried = _classifier(**shape, chunk_tokens=8, carry_state=True)
    batch = _batch([*LENGTHS, 0])
    torch.testing.assert_close(carried(*batch), _classifier(**shape)(*batch))


def test_word_dropout_applies_in_training_only() -> None:
    model = _classifier(dropout={"words": 0.9, "embeddings": 0.0, "layers": 0.0, "head": 0.0})
    ids, lengths = _batch(LENGTHS)
    torch.testing.assert_close(model(ids, lengths), model(ids, lengths), rtol=0, atol=0)
    model.train()
    first, second = model(ids, lengths), model(ids, lengths)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("units", [0, 4])
def test_last_layer_outputs_the_logit(units: int) -> None:
    model = _classifier(head={"units": units, "activation": "relu"})
    last = model.get_submodule(model.last_layer)
    outputs: list[Tensor] = []
    last.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    ids, lengths = _batch(LENGTHS)
    torch.testing.assert_close(model(ids, lengths), outputs[0].squeeze(1), rtol=0, atol=0)


def test_every_weight_gets_a_gradient() -> None:
    model = _classifier(layers=2, pooling="attention", head={"units": 4, "activation": "tanh"})
    ids, lengths = _batch(LENGTHS)
    model(ids, lengths).sum().backward()
    without = [name for name, weight in model.named_parameters() if weight.grad is None]
    assert without == []

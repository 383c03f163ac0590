"""All peers read the same tokens, and the limit counts the right matrix products."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from bench.peers.fixed_length import fixed_length
from bench.peers.plain import PlainPeer
from bench.peers.products import LSTMProducts
from bench.training.task import Task
from sentiment.tokens.batches import iter_shuffled_batches
from sentiment.tokens.vocabulary import PADDING_ID
from tests.model.small_model import model_params


def test_every_way_to_pad_keeps_the_tokens_that_are_counted(task: Task) -> None:
    rows = np.arange(len(task.reviews.train))
    own = sum(
        batch.tokens
        for batch in iter_shuffled_batches(task.reviews.train, task.truncation, 64, np.random.default_rng(0))
    )
    ids, lengths = PlainPeer(task, packed=True).padded(rows)
    fixed = fixed_length(task.reviews.train, task.truncation)
    counts = [own, int((ids != PADDING_ID).sum()), int(lengths.sum()), int((fixed != PADDING_ID).sum())]
    assert counts == [task.tokens(rows)] * 4
    for row in rows:
        kept = task.truncation(task.reviews.train[row])
        np.testing.assert_array_equal(ids[row, : lengths[row]], kept)
        np.testing.assert_array_equal(fixed[row, len(fixed[row]) - len(kept) :], kept)


def test_packed_and_padded_compute_the_same_where_there_is_no_padding(task: Task) -> None:
    ids, lengths = torch.randint(2, 1000, (4, 30)), torch.full((4,), 30)
    packed, padded = (PlainPeer(task, packed).model(ids, lengths) for packed in (True, False))
    torch.testing.assert_close(packed, padded)


@pytest.mark.parametrize("packed", [True, False])
def test_plain_peer_learns_its_training_reviews(packed: bool, task: Task) -> None:
    peer = PlainPeer(task, packed)
    for group in peer.optimizer.param_groups:
        group["lr"] = 0.02
    for _ in range(10):
        peer.train(np.random.default_rng(0).permutation(len(task.reviews.train)))
    assert roc_auc_score(task.reviews.train.labels, peer.score(task.reviews.train)) > 0.9


def test_keras_trains_and_scores(task: Task) -> None:
    pytest.importorskip("jax", reason="of the extra `bench`")
    from bench.peers.keras_lstm import KerasPeer

    peer = KerasPeer(task)
    before = peer.score(task.reviews.validation)
    peer.train(np.arange(64))
    after = peer.score(task.reviews.validation)
    assert before.shape == (len(task.reviews.validation),)
    assert not np.array_equal(before, after)


def test_products_are_those_of_an_lstm_forward_and_backward() -> None:
    """Counted on an LSTM written out, whose first state wants its gradient too."""
    params = model_params(layers=2, bidirectional=False)
    sequences, words = 7, 11
    with FlopCounterMode(display=False) as limit:
        products = LSTMProducts(params, sequences, words, "fp32")
        products.rate(steps=1)
    with FlopCounterMode(display=False) as written_out:
        inputs = torch.randn(words, sequences, params.embedding_dim, requires_grad=True)
        states: Tensor = inputs
        for _ in range(params.layers):
            states = _lstm(states, params.hidden_units)
        states.sum().backward()
    assert products.tokens == sequences * words
    assert limit.get_total_flops() == written_out.get_total_flops() > 0


def _lstm(inputs: Tensor, hidden: int) -> Tensor:
    """Return all states, shape (words, sequences, hidden)."""
    words, sequences, units = inputs.shape
    weights = torch.randn(units, 4 * hidden, requires_grad=True)
    recurrent = torch.randn(hidden, 4 * hidden, requires_grad=True)
    state = torch.zeros(sequences, hidden, requires_grad=True)
    cell = torch.zeros(sequences, hidden)
    projected = (inputs.reshape(words * sequences, units) @ weights).view(words, sequences, 4 * hidden)
    states = []
    for word in projected:
        enter, forget, let_out, new = (word + state @ recurrent).chunk(4, dim=1)
        cell = cell * forget.sigmoid() + enter.sigmoid() * new.tanh()
        state = let_out.sigmoid() * cell.tanh()
        states.append(state)
    return torch.stack(states)

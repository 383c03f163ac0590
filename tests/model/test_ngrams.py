"""The n-gram part: naive Bayes at the start, one linear model with the LSTM's after that."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from sentiment.model.classifier import SentimentClassifier, inputs_of
from sentiment.model.model_files import load_model, save_model
from sentiment.model.ngram_branch import START, learn_ngrams
from sentiment.model.scoring import score
from sentiment.params.model import NGrams
from sentiment.tokens.batches import Cut, ordered_batches
from sentiment.tokens.encoding import encode
from sentiment.tokens.token_store import TokenizedReviews
from tests.model.shapes import model_params
from tests.tokens.made import tokenizer_of

NGRAMS = NGrams(order=2, min_reviews=2, smoothing=0.01, weight=0.75)
VOCABULARY = 300
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tokenized(reviews: pa.Table) -> TokenizedReviews:
    texts = reviews["text"].to_pylist()
    return encode(tokenizer_of(texts, VOCABULARY), reviews)


def _classifier(tokenized: TokenizedReviews) -> SentimentClassifier:
    torch.manual_seed(0)
    part, _ = learn_ngrams(tokenized, NGRAMS)
    return SentimentClassifier(model_params(ngrams=NGRAMS.model_dump()), VOCABULARY, part).eval()


def test_starts_as_naive_bayes_on_binary_counts_whatever_the_length(tokenized: TokenizedReviews) -> None:
    part, ngrams = learn_ngrams(tokenized, NGRAMS)
    dense = np.zeros((len(tokenized), len(part.keys)))
    for row in range(len(tokenized)):
        dense[row, ngrams.indices[ngrams.offsets[row] : ngrams.offsets[row + 1]]] = 1
    positive, negative = (
        dense[tokenized.labels == label].sum(0) + NGRAMS.smoothing * len(tokenized) for label in (1, 0)
    )
    ratios = np.log((positive / positive.sum()) / (negative / negative.sum()))
    logits = part(torch.from_numpy(ngrams.indices), torch.from_numpy(ngrams.offsets))
    counts = dense.sum(1)
    naive = START * dense @ ratios * np.sqrt(counts.mean() / counts)
    np.testing.assert_allclose(logits.detach().numpy(), naive, rtol=1e-4, atol=1e-4)


def test_hard_labels_as_probabilities_give_the_ratios_of_counted_classes_bit_for_bit(
    tokenized: TokenizedReviews,
) -> None:
    part, ngrams = learn_ngrams(tokenized, NGRAMS)
    labels = np.repeat(tokenized.labels, np.diff(ngrams.offsets))
    positive, negative = (
        np.bincount(ngrams.indices[labels == label], minlength=len(part.keys))
        + NGRAMS.smoothing * len(tokenized)
        for label in (1, 0)
    )
    counted = np.log(positive / positive.sum()) - np.log(negative / negative.sum())
    scaled = counted * np.sqrt(len(ngrams.indices) / len(tokenized))
    assert torch.equal(part.scaled_ratios, torch.from_numpy(scaled).float())
    soft, _ = learn_ngrams(replace(tokenized, labels=tokenized.labels.astype(np.float32)), NGRAMS)
    assert torch.equal(soft.scaled_ratios, part.scaled_ratios)


def test_review_of_both_classes_counts_towards_each_by_its_share(tokenized: TokenizedReviews) -> None:
    undecided = replace(tokenized, labels=np.full(len(tokenized), 0.5, np.float32))
    part, _ = learn_ngrams(undecided, NGRAMS)
    assert torch.equal(part.scaled_ratios, torch.zeros(len(part.keys)))


def test_score_is_the_mean_of_both_parts_by_their_shares(tokenized: TokenizedReviews) -> None:
    model = _classifier(tokenized)
    assert model.ngrams is not None
    ngrams = model.ngrams.vocabulary.find(tokenized)
    batch = next(ordered_batches(tokenized, Cut(24, "both"), len(tokenized), ngrams))
    inputs = inputs_of(batch, CPU)
    deep, wide = model.parts(*inputs)
    torch.testing.assert_close(model(*inputs), (deep + 3 * wide) / 4)
    alone = SentimentClassifier(model_params(), VOCABULARY).eval()
    alone.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("ngrams.")})
    torch.testing.assert_close(alone(inputs.ids, inputs.lengths), deep)


def test_score_does_not_depend_on_the_batch(tokenized: TokenizedReviews) -> None:
    model = _classifier(tokenized)
    rows = [7, 3, 150]
    few = TokenizedReviews.from_lists([tokenized[row] for row in rows], tokenized.labels[rows])
    np.testing.assert_allclose(score(model, few), score(model, tokenized)[rows], rtol=1e-4, atol=1e-5)


def test_a_review_without_known_ngrams_gets_the_bias(tokenized: TokenizedReviews) -> None:
    part, _ = learn_ngrams(tokenized, NGRAMS)
    part.bias.data.fill_(0.5)
    logits = part(torch.empty(0, dtype=torch.int64), torch.tensor([0, 0, 0]))
    assert logits.tolist() == [0.5, 0.5]


def test_loaded_model_scores_as_the_saved_one(tokenized: TokenizedReviews, tmp_path: Path) -> None:
    model = _classifier(tokenized)
    save_model(tmp_path / "model", model)
    np.testing.assert_array_equal(score(load_model(tmp_path / "model"), tokenized), score(model, tokenized))


def test_a_batch_without_ngrams_is_refused(tokenized: TokenizedReviews) -> None:
    batch = next(ordered_batches(tokenized, Cut(24, "both"), 4))
    with pytest.raises(ValueError, match="reads n-grams"):
        _classifier(tokenized)(*inputs_of(batch, CPU))

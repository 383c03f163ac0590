"""The n-gram branch: naive Bayes ratios, and its combination with the LSTM."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from sentiment.model.classifier import SentimentClassifier, build_inputs, predict_logits
from sentiment.model.model_files import load_model, save_model
from sentiment.model.ngram_branch import INITIAL_WEIGHT, fit_ngram_branch
from sentiment.params.model import NGrams
from sentiment.tokens.batches import Truncation, iter_sorted_batches
from sentiment.tokens.encoding import encode
from sentiment.tokens.ngram_features import NGramVocabulary
from sentiment.tokens.token_store import TokenizedReviews
from tests.model.small_model import model_params
from tests.tokens.small_tokenizer import train_small_tokenizer

NGRAMS = NGrams(order=2, min_reviews=2, smoothing=0.01, weight=0.75)
VOCABULARY = 300
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tokenized(reviews: pa.Table) -> TokenizedReviews:
    texts = reviews["text"].to_pylist()
    return encode(train_small_tokenizer(texts, VOCABULARY), reviews)


def _classifier(tokenized: TokenizedReviews) -> SentimentClassifier:
    torch.manual_seed(0)
    branch, _ = fit_ngram_branch(tokenized, NGRAMS)
    return SentimentClassifier(model_params(ngrams=NGRAMS.model_dump()), VOCABULARY, branch).eval()


def test_initial_logits_are_scaled_naive_bayes_on_binary_counts(tokenized: TokenizedReviews) -> None:
    branch, ngrams = fit_ngram_branch(tokenized, NGRAMS)
    dense = np.zeros((len(tokenized), len(branch.keys)))
    for row in range(len(tokenized)):
        dense[row, ngrams.indices[ngrams.offsets[row] : ngrams.offsets[row + 1]]] = 1
    positive, negative = (
        dense[tokenized.labels == label].sum(0) + NGRAMS.smoothing * len(tokenized) for label in (1, 0)
    )
    ratios = np.log((positive / positive.sum()) / (negative / negative.sum()))
    logits = branch(torch.from_numpy(ngrams.indices), torch.from_numpy(ngrams.offsets))
    counts = dense.sum(1)
    naive = INITIAL_WEIGHT * dense @ ratios * np.sqrt(counts.mean() / counts)
    np.testing.assert_allclose(logits.detach().numpy(), naive, rtol=1e-4, atol=1e-4)


def test_hard_labels_as_soft_labels_give_equal_ratios_bit_for_bit(
    tokenized: TokenizedReviews,
) -> None:
    branch, ngrams = fit_ngram_branch(tokenized, NGRAMS)
    labels = np.repeat(tokenized.labels, np.diff(ngrams.offsets))
    positive, negative = (
        np.bincount(ngrams.indices[labels == label], minlength=len(branch.keys))
        + NGRAMS.smoothing * len(tokenized)
        for label in (1, 0)
    )
    counted = np.log(positive / positive.sum()) - np.log(negative / negative.sum())
    scaled = counted * np.sqrt(len(ngrams.indices) / len(tokenized))
    assert torch.equal(branch.scaled_ratios, torch.from_numpy(scaled).float())
    soft, _ = fit_ngram_branch(replace(tokenized, labels=tokenized.labels.astype(np.float32)), NGRAMS)
    assert torch.equal(soft.scaled_ratios, branch.scaled_ratios)


def test_soft_label_counts_towards_both_classes_in_proportion(tokenized: TokenizedReviews) -> None:
    undecided = replace(tokenized, labels=np.full(len(tokenized), 0.5, np.float32))
    branch, _ = fit_ngram_branch(undecided, NGRAMS)
    assert torch.equal(branch.scaled_ratios, torch.zeros(len(branch.keys)))


def test_logit_is_the_weighted_mean_of_both_branches(tokenized: TokenizedReviews) -> None:
    model = _classifier(tokenized)
    assert model.ngrams is not None
    ngrams = model.ngrams.vocabulary.extract(tokenized)
    batch = next(iter_sorted_batches(tokenized, Truncation(24, "both"), len(tokenized), ngrams))
    inputs = build_inputs(batch, CPU)
    deep, wide = model.compute_branch_logits(*inputs)
    torch.testing.assert_close(model(*inputs), (deep + 3 * wide) / 4)
    alone = SentimentClassifier(model_params(), VOCABULARY).eval()
    alone.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("ngrams.")})
    torch.testing.assert_close(alone(inputs.ids, inputs.lengths), deep)


def test_logit_does_not_depend_on_the_batch(tokenized: TokenizedReviews) -> None:
    model = _classifier(tokenized)
    rows = [7, 3, 150]
    few = TokenizedReviews.from_lists([tokenized[row] for row in rows], tokenized.labels[rows])
    np.testing.assert_allclose(
        predict_logits(model, few), predict_logits(model, tokenized)[rows], rtol=1e-4, atol=1e-5
    )


def test_review_without_ngrams_of_the_vocabulary_gets_the_bias(tokenized: TokenizedReviews) -> None:
    branch, _ = fit_ngram_branch(tokenized, NGRAMS)
    branch.bias.data.fill_(0.5)
    logits = branch(torch.empty(0, dtype=torch.int64), torch.tensor([0, 0, 0]))
    assert logits.tolist() == [0.5, 0.5]


def test_loaded_model_predicts_like_the_saved_one(tokenized: TokenizedReviews, tmp_path: Path) -> None:
    model = _classifier(tokenized)
    save_model(tmp_path / "model", model)
    np.testing.assert_array_equal(
        predict_logits(load_model(tmp_path / "model"), tokenized), predict_logits(model, tokenized)
    )


def test_batch_without_ngrams_raises(tokenized: TokenizedReviews) -> None:
    batch = next(iter_sorted_batches(tokenized, Truncation(24, "both"), 4))
    with pytest.raises(ValueError, match="the batch has no n-grams"):
        _classifier(tokenized)(*build_inputs(batch, CPU))


def test_branches_of_the_same_reviews_share_statistics_but_no_weights(
    tokenized: TokenizedReviews, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, ngrams = fit_ngram_branch(tokenized, NGRAMS)
    monkeypatch.setattr(NGramVocabulary, "build", None)  # the statistics are not computed again
    with torch.no_grad():
        for tensor in (first.weights, first.bias, first.scaled_ratios):
            tensor.add_(1)
    second, same_ngrams = fit_ngram_branch(tokenized, NGRAMS)
    assert same_ngrams is ngrams
    assert torch.equal(second.weights, torch.full_like(second.weights, INITIAL_WEIGHT))
    assert torch.equal(second.scaled_ratios + 1, first.scaled_ratios)

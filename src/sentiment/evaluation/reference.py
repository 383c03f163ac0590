"""The linear reference model: TF-IDF of words and word pairs with logistic regression, trained in seconds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.base import clone
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline

from sentiment.errors import UserError

FOLDS = 5
"""Number of folds of the out-of-fold predictions: each model is trained on 80% of the reviews."""

FOLD_SEED = 42
"""Seed of the assignment of groups to folds; it is no parameter, because it only affects a list to read."""

BLOCKS = 20 * FOLDS
"""Number of blocks into which reviews without a group are cut: 20 per fold, so that each fold has reviews of
every part of the file, and the films at the ends of blocks are few."""


@dataclass(frozen=True)
class LinearReference:
    """The fitted model with the features of its training reviews, which out-of-fold predictions use again."""

    pipeline: Pipeline
    """TF-IDF vectorizer and logistic regression."""
    features: csr_matrix
    """TF-IDF features of the training reviews, shape (n_training_reviews, n_features)."""
    labels: NDArray[np.int8]
    """Labels of the training reviews, shape (n_training_reviews,)."""

    def predict_logits(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Return the log-odds that each text is positive, shape (texts,)."""
        logits: NDArray[np.float64] = self.pipeline.decision_function(list(texts))
        return logits

    def predict_out_of_fold(self, groups: NDArray[np.int64] | None) -> NDArray[np.float64]:
        """Predict each training review by a model that was trained on the other folds.

        The vectorizer is not fitted again in each fold, which would take most of the time. Its vocabulary and
        document frequencies are counted without labels, so no label of a review can affect the review's own
        prediction; the weights are fitted per fold.

        Args:
            groups: group code of each training review, shape (n_training_reviews,), or None if they are
                unknown. Reviews of a group, such as those of one film, are in the same fold.

        Returns:
            Probability that each training review is positive, shape (n_training_reviews,).

        Raises:
            UserError: the reviews are too few for both labels in every fold.
        """
        folds = assign_folds(self.labels, groups)
        probabilities = np.empty(len(self.labels))
        for fold in range(FOLDS):
            held_out = folds == fold
            classifier = clone(self.pipeline[-1]).fit(self.features[~held_out], self.labels[~held_out])
            probabilities[held_out] = classifier.predict_proba(self.features[held_out])[:, 1]
        return probabilities


def build_reference() -> Pipeline:
    """Return the model before training. Its settings are scikit-learn's usual ones; nothing is tuned.

    The solver liblinear calls no multi-threaded BLAS function, so the weights do not depend on the number of
    threads. It visits the reviews in a seeded random order.
    """
    return make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True),
        LogisticRegression(C=10, solver="liblinear", dual=True, max_iter=1000, random_state=0),
    )


def fit_reference(texts: Sequence[str], labels: NDArray[np.int8]) -> LinearReference:
    """Train the reference model.

    Args:
        texts: texts of the training reviews.
        labels: labels, 0 or 1, shape (texts,).

    Raises:
        UserError: there are reviews of one label only, or no word is in two reviews.
    """
    if len(np.unique(labels)) < 2:
        raise UserError("the linear reference needs training reviews of both labels, found only one label")
    pipeline = build_reference()
    try:
        features = pipeline[0].fit_transform(list(texts))
    except ValueError as error:  # the message is about `stop_words` or `max_df`, which users cannot set
        raise UserError(
            f"the linear reference found no word in two of the {len(texts):,} training reviews"
        ) from error
    pipeline[-1].fit(features, labels)
    return LinearReference(pipeline, features, labels)


def assign_folds(labels: NDArray[np.int8], groups: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """Assign reviews to `FOLDS` folds with similar label balance; reviews of a group are in the same fold.

    Where the groups are too few or too large for both labels in each fold, they are ignored: a prediction
    that may have seen another review of the group is better than none.

    Args:
        labels: labels, 0 or 1, shape (reviews,).
        groups: group code of each review, shape (reviews,), or None if they are unknown.

    Returns:
        Fold of each review, 0 to `FOLDS` - 1, shape (reviews,).

    Raises:
        UserError: the reviews are too few for both labels in every fold.
    """
    blocks = _cut_in_blocks(labels)
    for codes in (blocks,) if groups is None else (groups, blocks):
        folds = np.full(len(labels), -1, dtype=np.int64)
        if min(len(np.unique(codes)), np.sum(labels == 0), np.sum(labels == 1)) >= FOLDS:
            splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=FOLD_SEED)
            for fold, (_, held_out) in enumerate(splitter.split(labels, labels, codes)):
                folds[held_out] = fold
        if all(len(np.unique(labels[folds == fold])) == 2 for fold in range(FOLDS)):
            return folds
    raise UserError(
        f"out-of-fold predictions need training reviews of both labels in each of {FOLDS} folds; "
        f"{np.sum(labels == 0)} negative and {np.sum(labels == 1)} positive reviews are too few"
    )


def _cut_in_blocks(labels: NDArray[np.int8]) -> NDArray[np.int64]:
    """Return the block of each review: the reviews of each label, in their order, cut into `BLOCKS` blocks.

    A block takes the place of an unknown group. Sources often list the reviews of a film one after another,
    and both labels in the same order of films, as `split_in_blocks` in `data/splits.py` describes.
    """
    blocks = np.empty(len(labels), dtype=np.int64)
    for label in (0, 1):
        rows = np.flatnonzero(labels == label)
        blocks[rows] = np.arange(len(rows)) * BLOCKS // max(len(rows), 1)
    return blocks

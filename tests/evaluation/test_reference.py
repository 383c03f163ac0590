"""The linear reference model on real reviews: what it learns; out-of-fold predictions that do not leak."""

import numpy as np
import pyarrow as pa
import pytest
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from sentiment.data.imdb import load_package_reviews
from sentiment.errors import UserError
from sentiment.evaluation.reference import FOLDS, LinearReference, assign_folds, fit_reference


@pytest.fixture(scope="module")
def every_tenth() -> pa.Table:
    """2,500 real reviews; the other film reviews beside each are mostly missing."""
    return load_package_reviews().take(pa.array(range(0, 25_000, 10)))


@pytest.fixture(scope="module")
def fitted(every_tenth: pa.Table) -> LinearReference:
    return fit_reference(every_tenth["text"].to_pylist(), every_tenth["label"].to_numpy())


def test_reference_ranks_reviews_of_other_films(fitted: LinearReference) -> None:
    others = load_package_reviews().take(pa.array(range(5, 25_000, 50)))
    logits = fitted.predict_logits(others["text"].to_pylist())
    assert logits.shape == (500,)
    assert roc_auc_score(others["label"].to_numpy(), logits) > 0.9


def test_weights_do_not_depend_on_the_number_of_threads(every_tenth: pa.Table) -> None:
    some = every_tenth.take(pa.array(range(0, 2500, 5)))
    texts, labels = some["text"].to_pylist(), some["label"].to_numpy()
    threadpoolctl = pytest.importorskip("threadpoolctl")  # comes with scikit-learn
    weights = []
    for threads in (1, 4):
        with threadpoolctl.threadpool_limits(threads):
            weights.append(fit_reference(texts, labels).pipeline[-1].coef_)
    np.testing.assert_array_equal(*weights)


def test_out_of_fold_predictions_equal_those_of_new_reviews(fitted: LinearReference) -> None:
    """In-sample predictions of so flexible a model are nearly all correct, out-of-fold ones are not."""
    out_of_fold = fitted.predict_out_of_fold(None)
    in_sample = expit(fitted.pipeline[-1].decision_function(fitted.features))
    errors = [np.mean((p > 0.5) != fitted.labels) for p in (in_sample, out_of_fold)]
    assert errors[0] < 0.01
    assert 0.1 < errors[1] < 0.2
    np.testing.assert_array_equal(out_of_fold, fitted.predict_out_of_fold(None))


def test_a_review_whose_label_changes_keeps_its_own_prediction(fitted: LinearReference) -> None:
    """One review of each label in the same group changes its label, so the stratified folds are the same."""
    flipped = fitted.labels.copy()
    flipped[[0, 2000]] = 1 - flipped[[0, 2000]]
    groups = np.arange(len(flipped)) % 50
    before = fitted.predict_out_of_fold(groups)
    after = LinearReference(fitted.pipeline, fitted.features, flipped).predict_out_of_fold(groups)
    np.testing.assert_array_equal(before[[0, 2000]], after[[0, 2000]])
    assert not np.array_equal(before, after)


def test_reviews_of_a_group_are_in_one_fold() -> None:
    rng = np.random.default_rng(0)
    labels, groups = rng.integers(0, 2, 600).astype(np.int8), rng.integers(0, 60, 600)
    folds = assign_folds(labels, groups)
    assert set(folds) == set(range(FOLDS))
    assert all(len(set(folds[groups == group])) == 1 for group in range(60))
    balance = [labels[folds == fold].mean() for fold in range(FOLDS)]
    assert max(balance) - min(balance) < 0.1


def test_neighbours_without_a_group_are_in_one_fold() -> None:
    labels = np.repeat([0, 1], 5000).astype(np.int8)
    folds = assign_folds(labels, None)
    assert np.mean(folds[1:] == folds[:-1]) > 0.97
    np.testing.assert_array_equal(folds[:5000], folds[5000:])  # the reviews of a film with either label


@pytest.mark.parametrize(
    ("texts", "labels", "message"),
    [
        (["good film", "good fun"], [1, 1], "both labels"),
        (["", "  "], [0, 1], "no word in two of the 2 training reviews"),
        (["good", "bad"], [1, 0], "no word in two of the 2 training reviews"),
    ],
)
def test_unusable_training_reviews_are_an_error(texts: list[str], labels: list[int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        fit_reference(texts, np.array(labels, np.int8))


def test_too_few_groups_for_the_folds_are_ignored() -> None:
    labels = np.array([0, 1] * 100, np.int8)
    np.testing.assert_array_equal(assign_folds(labels, np.arange(200) % 2), assign_folds(labels, None))


def test_too_few_reviews_for_the_folds_are_an_error() -> None:
    with pytest.raises(UserError, match="4 negative and 4 positive reviews are too few"):
        assign_folds(np.array([0, 1] * 4, np.int8), None)

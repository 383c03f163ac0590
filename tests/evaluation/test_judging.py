"""Two models side by side on the test split."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from sentiment.evaluation.verdict import Judgement, gain_on_test
from sentiment.params import EvaluateParams

LABELS = np.random.default_rng(0).integers(0, 2, 200)


def _judged(noise: float, seed: int) -> Judgement:
    errors = np.random.default_rng(seed).normal(size=len(LABELS))
    return Judgement({}, {}, 1 / (1 + np.exp(-(LABELS + noise * errors))))


BETTER, WORSE = _judged(0.5, seed=1), _judged(1.0, seed=2)


def _params(confidence_level: float) -> EvaluateParams:
    return EvaluateParams(confidence_level=confidence_level, threshold=0.5)


def test_gain_is_the_model_s_auc_less_the_reference_s() -> None:
    gain, loss = (gain_on_test(*both, LABELS, _params(0.95)) for both in ((BETTER, WORSE), (WORSE, BETTER)))
    aucs = [roc_auc_score(LABELS, judged.test_probabilities) for judged in (BETTER, WORSE)]
    assert gain.auc == pytest.approx(aucs[0] - aucs[1])
    assert loss.auc == pytest.approx(-gain.auc)
    assert gain.auc > 0


def test_interval_is_that_of_a_paired_bootstrap_at_the_level_asked_for() -> None:
    rng = np.random.default_rng(3)
    drawn = []
    for _ in range(500):
        rows = rng.integers(0, len(LABELS), len(LABELS))
        aucs = [roc_auc_score(LABELS[rows], judged.test_probabilities[rows]) for judged in (BETTER, WORSE)]
        drawn.append(aucs[0] - aucs[1])
    for confidence_level in (0.8, 0.95):
        interval = gain_on_test(BETTER, WORSE, LABELS, _params(confidence_level)).interval
        assert interval is not None
        low, high = np.quantile(drawn, [(1 - confidence_level) / 2, (1 + confidence_level) / 2])
        assert interval.low == pytest.approx(low, abs=0.1 * (high - low))
        assert interval.high == pytest.approx(high, abs=0.1 * (high - low))


def test_one_model_under_both_names_gains_nothing_for_sure() -> None:
    gain = gain_on_test(BETTER, BETTER, LABELS, _params(0.95))
    assert gain.figures() == {"auc": 0.0, "interval": {"low": 0.0, "high": 0.0}}

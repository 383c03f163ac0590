"""A surrogate of the trials of a search: hyperparameters in, AUCs of a training out, in a millisecond.

Searches with different settings can be compared on it by the hundred (surrogate benchmarks; Eggensperger et
al., 2015). It is fitted to the trials that `bench.tuning.record` recorded: the mean curve of a configuration
comes from a Gaussian process, and what a training adds to that by chance, from residuals of recorded curves.
"""

import json
import math
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.model_selection import KFold

from bench.tuning.pruning import Trained
from bench.tuning.record import RECORDED_TRIALS, SEED, VALIDATION_AUC
from sentiment.params import Params
from sentiment.params.search_space import Value, Values
from sentiment.params.tune import Choices, Dimension
from sentiment.training.epoch_metrics import IntermediateEvaluation

FOLDS = 10
LENGTH_SCALES = (0.5, 30.0)
"""Bounds of the length scales, in widths of the search space. Shorter ones would interpolate noise."""
NOISE_LEVELS = (0.05, 10.0)
"""Bounds of the variance of chance, relative to that of the mean curves."""


@dataclass(frozen=True)
class Fidelity:
    """How well the surrogate predicts the validation AUC of recorded trials that it was not fitted to.

    Attributes:
        r2: share of the variance that is predicted.
        rank_correlation: Spearman's.
        error: standard deviation of the residuals.
        chance: standard deviation between equal trials with different seeds of the training.
        spread: standard deviation of the recorded trials.
    """

    r2: float
    rank_correlation: float
    error: float
    chance: float
    spread: float


class Surrogate:
    """Mean curve of a configuration, and curves of its trainings."""

    def __init__(self, params: Params, recorded: pd.DataFrame, chance: float = 1.0) -> None:
        """Fit the surrogate.

        Args:
            params: parameters with the search space that the trials were drawn from.
            recorded: one row per trial, as `bench.tuning.record` writes them.
            chance: factor of what trainings add to the mean curves by chance.
        """
        self._space, self._per_epoch = params.tune.space, params.tune.evaluations_per_epoch
        self._columns = [name for name in recorded if name not in {*self._space, SEED}]
        trials = recorded[recorded[SEED] == params.train.seed]
        rows = trials[[*self._space]].itertuples(index=False)
        inputs = self._encode([dict(zip(self._space, row, strict=True)) for row in rows])
        curves = trials[self._columns].to_numpy()
        self._process = _fit_process(inputs, curves)
        unseen = _predict_unseen(inputs, curves)
        residuals = curves - unseen
        self._noise = chance * (residuals - residuals.mean(axis=0))
        aucs = curves[:, -1]
        self.fidelity = Fidelity(
            r2=float(1 - np.mean(residuals[:, -1] ** 2) / aucs.var()),
            rank_correlation=float(spearmanr(unseen[:, -1], aucs).statistic),
            error=float(residuals[:, -1].std()),
            chance=_measure_chance(recorded, sorted(self._space)),
            spread=float(aucs.std()),
        )

    @classmethod
    def load(cls, params: Params, chance: float = 1.0) -> Self:
        """Fit the surrogate to the recorded trials."""
        return cls(params, pd.read_csv(RECORDED_TRIALS), chance)

    def predict(self, values: Values) -> Trained:
        """Return the mean curve of a configuration."""
        return self._build(self._process.predict(self._encode([values]))[0])

    def train(self, values: Values, seed: int) -> Trained:
        """Return the curve of one training: the mean curve, and the residuals of a recorded trial.

        Equal values and seeds give equal curves.
        """
        text = json.dumps(dict(values), sort_keys=True)
        rng = np.random.default_rng([seed, zlib.crc32(text.encode())])
        noise = self._noise[rng.integers(len(self._noise))]
        return self._build(self._process.predict(self._encode([values]))[0] + noise)

    def read(self, recorded: pd.DataFrame) -> list[Trained]:
        """Return the curves of recorded trials."""
        return [self._build(curve) for curve in recorded[self._columns].to_numpy()]

    def _build(self, aucs: NDArray[np.float64]) -> Trained:
        """Build a training whose optimizer steps are counted in evaluations, which are evenly spaced."""
        *intermediate_aucs, validation_auc = aucs.tolist()
        evaluations = (
            IntermediateEvaluation(index, index, len(intermediate_aucs), auc, index % self._per_epoch == 0)
            for index, auc in enumerate(intermediate_aucs, 1)
        )
        return Trained(tuple(evaluations), validation_auc)

    def _encode(self, trials: Sequence[Values]) -> NDArray[np.float64]:
        """Scale all hyperparameters to 0 to 1, by the search space; shape (trials, hyperparameters)."""
        names = sorted(self._space)
        return np.array([[_scale(self._space[name], trial[name]) for name in names] for trial in trials])


def _fit_process(inputs: NDArray[np.float64], curves: NDArray[np.float64]) -> GaussianProcessRegressor:
    """Fit a Gaussian process to all AUCs of a curve, with one length scale for each hyperparameter."""
    kernel = RBF(np.ones(inputs.shape[1]), LENGTH_SCALES) + WhiteKernel(0.5, NOISE_LEVELS)
    process = GaussianProcessRegressor(ConstantKernel() * kernel, normalize_y=True)
    with warnings.catch_warnings():  # the length scale of a hyperparameter without any effect is at its bound
        warnings.simplefilter("ignore", ConvergenceWarning)
        return process.fit(inputs, curves)


def _predict_unseen(inputs: NDArray[np.float64], curves: NDArray[np.float64]) -> NDArray[np.float64]:
    """Predict the curve of each trial by a model fitted to other trials."""
    predicted = np.empty_like(curves)
    for fitted, unseen in KFold(FOLDS, shuffle=True, random_state=0).split(inputs):
        predicted[unseen] = _fit_process(inputs[fitted], curves[fitted]).predict(inputs[unseen])
    return predicted


def _measure_chance(recorded: pd.DataFrame, names: list[str]) -> float:
    """Return the standard deviation of the validation AUC between two seeds, without the seeds' own means."""
    by_seed = recorded.pivot_table(index=names, columns=SEED, values=VALIDATION_AUC).dropna()
    return float(by_seed.diff(axis=1).iloc[:, -1].std() / math.sqrt(2))


def _scale(dimension: Dimension, value: Value) -> float:
    if isinstance(dimension, Choices):
        return dimension.choices.index(value) / (len(dimension.choices) - 1)
    low, high = float(dimension.low), float(dimension.high)
    if dimension.log:
        return math.log(float(value) / low) / math.log(high / low)
    return (float(value) - low) / (high - low)

"""The largest useful model: chosen on validation, labelled reviews first, then the unlabelled ones too.

The test split is read once, at the end, for the one model that validation chose.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sklearn.metrics import roc_auc_score

from bench.gpu.configurations import Configuration, load_configurations
from bench.gpu.context import Bench
from sentiment.intervals import compute_delong_interval
from sentiment.model.classifier import compute_probabilities, predict_logits
from sentiment.tokens.batches import TrainingData
from sentiment.training.epoch_metrics import EpochMetrics
from sentiment.training.loop import TrainingResult, fit

logger = logging.getLogger(__name__)


TEST_BAR = 0.985
RESERVE = 15.0
"""Seconds reserved for the test split at the end."""


class OutOfTimeError(Exception):
    """The part's time would end before this training."""


@dataclass(frozen=True)
class Tried:
    """A trained configuration; changes: all of its differences from params.yaml."""

    name: str
    changes: Mapping[str, Any]
    fitted: TrainingResult
    seconds: float

    @property
    def auc(self) -> float:
        """Validation AUC of the best epoch."""
        return self.fitted.best.validation_auc


def measure(bench: Bench) -> None:
    """Train as many configurations as time allows, then evaluate the best on the test split."""
    file = load_configurations()
    learning = bench.pack.learning()
    tried = [_tried(bench, entry.name, entry.changes, learning) for entry in _few(bench, file.labelled)]
    found = [model for model in tried if model]
    if not found:
        return
    if len(learning.unlabelled):
        found += _students(bench, learning, _best(found), _few(bench, file.students))
    else:
        bench.row("self-training", "no unlabelled reviews in the pack: ARCHIVE= of pack.sh brings them")
    _read_test(bench, _best(found))


def _few(bench: Bench, entries: Sequence[Configuration]) -> Sequence[Configuration]:
    """Return all, or in a smoke run the first and the last."""
    return entries if bench.on_gpu else [entries[0], *entries[1:][-1:]]


def _best(found: Sequence[Tried]) -> Tried:
    return max(found, key=lambda tried: tried.auc)


def _students(
    bench: Bench, learning: TrainingData, labeller: Tried, entries: Sequence[Configuration]
) -> list[Tried]:
    """Train on the unlabelled reviews too, with pseudo-labels from the first model."""
    with bench.guarded("self-training"):
        joined = _with_soft_labels(bench, learning, labeller)
        tried = [
            _tried(bench, f"self-training, {entry.name}", {**labeller.changes, **entry.changes}, joined)
            for entry in entries
        ]
        return [model for model in tried if model]
    return []


def _tried(bench: Bench, name: str, changes: Mapping[str, Any], learning: TrainingData) -> Tried | None:
    """Train a configuration and add its row; None if it failed or time was too short."""
    metric = f"validation AUC, {name}"
    with bench.guarded(metric):
        model, train = bench.pack.configuration(changes, device=bench.device)
        started = time.perf_counter()

        def on_epoch(epoch: EpochMetrics) -> None:
            logger.info(f"{name}, {epoch}")
            passed = time.perf_counter() - started
            if passed / epoch.epoch * (train.epochs - epoch.epoch) > bench.left - RESERVE:
                raise OutOfTimeError(f"given up after epoch {epoch.epoch}, {passed:.0f} s")

        if bench.left < 2 * RESERVE:
            bench.row(metric, "skipped: no time left")
            return None
        try:
            fitted = fit(model, train, learning, on_epoch, name)
        except OutOfTimeError as error:
            bench.row(metric, str(error))
            return None
        tried = Tried(name, changes, fitted, time.perf_counter() - started)
        bench.row(metric, f"{tried.auc:.4f}, {tried.seconds:.0f} s")
        epochs = [(epoch.validation_auc, epoch.tokens_per_second) for epoch in fitted.epochs]
        bench.note(metric, {"changes": dict(changes), "epochs": epochs, "seconds": tried.seconds})
        return tried
    return None


def _with_soft_labels(bench: Bench, learning: TrainingData, labeller: Tried) -> TrainingData:
    """Return the reviews with the unlabelled ones among those to learn from, as self-training has them."""
    model = labeller.fitted.model.to(bench.device)
    logits = predict_logits(model, learning.unlabelled, "pseudo-labels")
    return replace(
        learning, train=learning.train.concatenate(learning.unlabelled, compute_probabilities(logits))
    )


def _read_test(bench: Bench, chosen: Tried) -> None:
    metric = "test AUC of what validation chose"
    with bench.guarded(metric):
        test = bench.pack.read_test()
        scores = predict_logits(chosen.fitted.model.to(bench.device), test, "test")
        auc = float(roc_auc_score(test.labels, scores))
        interval = compute_delong_interval(test.labels, scores)
        value = f"{auc:.4f} ({interval.low:.4f} to {interval.high:.4f}): {chosen.name}"
        bench.gpu_row(metric, value, f"≥ {TEST_BAR}", auc >= TEST_BAR)
        bench.note("test", {"chosen": chosen.name, "changes": dict(chosen.changes), "auc": auc})

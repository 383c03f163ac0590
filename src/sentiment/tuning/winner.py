"""The trial whose model the search hands on."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial
from sklearn.metrics import roc_auc_score

from sentiment.intervals import Gain
from sentiment.lineage import log_configuration, origin_of
from sentiment.model.classifier import SentimentClassifier
from sentiment.model.files import Origin
from sentiment.tracking import Run
from sentiment.tuning.attributes import ranked
from sentiment.tuning.confirm import Confirmed, confirm
from sentiment.tuning.kept import kept, validation_logits
from sentiment.tuning.runs import find_trial_run, open_trial_run
from sentiment.tuning.space import configured
from sentiment.tuning.study import Search
from sentiment.tuning.summary import gain_over_first


@dataclass(frozen=True)
class Winner:
    """The finished trial that won.

    validation_auc: on all validation reviews. gain: in that, over trial 0; None where that did not finish.
    confirmed: the best trials on the fold set aside, the winner first; empty where none was.
    """

    number: int
    model: SentimentClassifier
    origin: Origin
    validation_auc: float
    gain: Gain | None
    confirmed: list[Confirmed]
    run: Run


def find_winner(search: Search, parent: Run) -> Winner:
    """Return the best of the finished trials, of which there must be one: on the fold set aside, if any is.

    Of several that are equal it is the first.
    """
    trials = search.trials()
    best = ranked(trials)
    confirmed = _confirmed(search, best)
    trial = trials[confirmed[0].trial] if confirmed else best[0]
    found, labels = kept(search, trial), search.reviews.validation.labels
    logits = {0: validation_logits(search, 0), trial.number: found.logits}
    gain = gain_over_first(search.results(), trial.number, labels, logits)
    params = configured(search.params, trial.params)
    origin = origin_of(params, search.reviews, search.name, trial.number)
    run = find_trial_run(parent, trial.number)
    if run is None:  # the tracking store is another than that of the day
        with open_trial_run(parent, search, trial.number) as run:
            log_configuration(run, params, search.reviews, origin)
    auc = float(roc_auc_score(labels, found.logits))
    return Winner(trial.number, found.model, origin, auc, gain, confirmed, run)


def _confirmed(search: Search, best: list[FrozenTrial]) -> list[Confirmed]:
    confirmation = search.params.tune.confirmation
    if confirmation is None:
        return []
    logits = {trial.number: _logits(search, trial) for trial in best[: confirmation.trials]}
    return confirm(logits, search.reviews.validation.labels, confirmation)


def _logits(search: Search, trial: FrozenTrial) -> NDArray[np.float32]:
    found = validation_logits(search, trial.number)
    return kept(search, trial).logits if found is None else found

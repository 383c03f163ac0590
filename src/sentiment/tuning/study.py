"""One search's study: its name, which follows from what it searches, and its state in the storage."""

import hashlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
import torch
from filelock import FileLock
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from sentiment import paths
from sentiment.errors import UserError
from sentiment.params import Params
from sentiment.settings import repository_root
from sentiment.tokens.batches import TrainingData
from sentiment.training.fingerprint import DECIDING, PACKAGE, compute_code_digest
from sentiment.training.runtime import resolve_device, resolve_precision
from sentiment.tuning.holdout import tuning_reviews
from sentiment.tuning.sampling import make_pruner, make_sampler, starting_trials, trials_in_all
from sentiment.tuning.storage import open_storage
from sentiment.tuning.trial_params import error_of

CODE = (*DECIDING, "tuning/trial_params.py", "tuning/sampling.py", "tuning/holdout.py", "tuning/trial.py")
"""What decides a trial's figures; tables and plots of a study may change while it stays."""

TOTALS = {"trials", "max_failed"}
"""Parameters of the search that say how long it goes on, not what its trials are."""

OPTUNA, IDENTITY, PREPARED = "optuna", "id", "prepared"
"""Attributes of a study: the version that made it, what no other study has, that its first trials wait."""


@dataclass(frozen=True)
class Search:
    """What every worker of a search knows."""

    params: Params
    reviews: TrainingData
    storage: BaseStorage
    name: str
    """Of the study."""

    @property
    def folder(self) -> Path:
        """Where locks, checkpoints and models of the study's trials lie."""
        return repository_root() / paths.STUDIES / self.name

    @property
    def total(self) -> int:
        """How many trials the search ends with."""
        return trials_in_all(self.params)

    @property
    def tuning_reviews(self) -> TrainingData:
        """What trials learn from and are ranked by."""
        return tuning_reviews(self.reviews, self.params.tune.active_holdout)

    @property
    def claims(self) -> FileLock:
        """Held by who takes up a trial, or starts or ends what all workers share."""
        return FileLock(self.folder / "claims.lock")

    @property
    def outputs(self) -> FileLock:
        """Held by who writes the results: two searches of one study end at the same moment."""
        return FileLock(self.folder / "outputs.lock")

    def trial_folder(self, number: int) -> Path:
        """Where a trial keeps its checkpoint, then its model."""
        return self.folder / f"trial-{number}"

    def study(self) -> optuna.Study:
        """Return the study as it is now."""
        sampler, pruner = make_sampler(self.params.tune), make_pruner(self.params)
        return optuna.load_study(study_name=self.name, storage=self.storage, sampler=sampler, pruner=pruner)

    def trials(self) -> list[FrozenTrial]:
        """Return the trials that params.yaml asks for, as far as there are any.

        Where `tune.trials` was higher before, the study has more.
        """
        return self.study().get_trials(deepcopy=False)[: self.total]

    def is_over(self) -> bool:
        """Whether all trials are done, or as many failed as may."""
        trials = self.trials()
        done = len(trials) == self.total and all(trial.state.is_finished() for trial in trials)
        return done or too_many_failed(trials, self.params.tune.max_failed)

    def results(self) -> optuna.Study:
        """Return a copy, in memory, of the study with the trials that params.yaml asks for.

        So the results are the same whether `tune.trials` was ever higher or not.
        Raises UserError where too many trials failed or none finished.
        """
        trials = self.trials()
        failed = [trial for trial in trials if trial.state == TrialState.FAIL]
        if too_many_failed(trials, self.params.tune.max_failed):
            errors = [f"  trial {trial.number}: {error_of(trial)}" for trial in failed]
            raise UserError(
                "\n".join([f"tune: {len(failed)} trials failed, tune.max_failed stops the search:", *errors])
            )
        if not any(trial.state == TrialState.COMPLETE for trial in trials):
            raise UserError("tune: no trial finished; each trial's MLflow run tells why")
        copy = optuna.create_study(direction="maximize", study_name=self.name)
        copy.add_trials(trials)
        return copy


def open_search(params: Params, reviews: TrainingData) -> Search:
    """Open the study of these parameters and this data; start it where there is none.

    Raises UserError where the storage does not work, or another major version of Optuna made this study.
    """
    name = study_name(params, reviews)
    storage = open_storage()
    search = Search(params, reviews, storage, name)
    search.folder.mkdir(parents=True, exist_ok=True)
    with search.claims:
        _prepare(search)
    return search


def study_name(params: Params, reviews: TrainingData, package: Path = PACKAGE) -> str:
    """Return a name that two searches share where they may share trials: `tune-` and a digest.

    That takes the same data, search space, strategy, fixed parameters, code and arithmetic, but neither the
    same number of trials nor of workers. package: where the code lies.
    """
    train = params.train
    device = resolve_device(train.device)
    unlabelled = train.unlabelled != "ignore" or "train.unlabelled" in params.tune.space
    content = {
        "model": params.model.model_dump(),
        "train": train.model_dump(),
        "tune": params.tune.model_dump(exclude=TOTALS),
        "vocabulary_size": reviews.vocabulary_size,
        "data": [split.digest for split in reviews.select_splits(unlabelled=unlabelled).values()],
        "code": compute_code_digest(package, CODE),
        "versions": [torch.__version__, np.__version__],
        "arithmetic": [device.type, resolve_precision(train.precision, device)],
    }
    digest = hashlib.md5(json.dumps(content, sort_keys=True).encode(), usedforsecurity=False).hexdigest()
    return f"tune-{digest}"


def too_many_failed(trials: Sequence[FrozenTrial], limit: int) -> bool:
    """Whether as many trials failed as may."""
    return sum(trial.state == TrialState.FAIL for trial in trials) >= limit


def _prepare(search: Search) -> None:
    """Make the study whole: a kill may have come while it was started."""
    try:
        study = search.study()
    except KeyError:
        starting_trials(search.params, search.storage)  # a fault in them is told before there is a study
        study = optuna.create_study(study_name=search.name, storage=search.storage, direction="maximize")
    made_by = study.user_attrs.get(OPTUNA)
    if made_by is None and not study.get_trials(deepcopy=False):
        study.set_user_attr(OPTUNA, optuna.__version__)
    elif _major(str(made_by)) != _major(optuna.__version__):
        raise UserError(
            f"the study {search.name} was made by optuna {made_by or 'of an unknown version'}, this is "
            f"{optuna.__version__}: install the other one to go on with it, or change tune.seed for a new one"
        )
    if IDENTITY not in study.user_attrs:
        study.set_user_attr(IDENTITY, uuid.uuid4().hex)
    if PREPARED not in study.user_attrs:
        for values in starting_trials(search.params, search.storage):
            study.enqueue_trial(values, skip_if_exists=True)
        study.set_user_attr(PREPARED, True)


def _major(version: str) -> str:
    return version.partition(".")[0]

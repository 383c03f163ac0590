"""The Optuna study of a search: its name, derived from parameters, data and code, and its stored state."""

import hashlib
import importlib.metadata
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
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
from sentiment.params.search_space import Combination
from sentiment.params.tune import GridSampling
from sentiment.settings import repository_root
from sentiment.tokens.batches import TrainingData
from sentiment.training.fingerprint import PACKAGE, TRAINING_CODE, compute_code_digest
from sentiment.training.runtime import resolve_device, resolve_precision
from sentiment.tuning.sampling import count_trials, list_starting_values
from sentiment.tuning.storage import open_storage
from sentiment.tuning.trial_params import get_error

FINGERPRINTED_CODE = (
    *TRAINING_CODE,
    "tuning/trial_params.py",
    "tuning/sampling.py",
    "tuning/pruning.py",
    "tuning/reporter.py",
    "tuning/trial.py",
    "tuning/trial_training.py",
)
"""Files whose code determines the results of a trial. A change of other code does not lead to a new study."""

LIMITS = {"trials", "max_failed"}
"""Parameters in the section `tune` that limit the number of trials and do not affect their results."""

RESULT_PACKAGES = ("optuna", "scikit-learn", "scipy")
"""Packages besides torch and numpy whose versions determine what a trial draws, its AUC, and whether it is
pruned."""

OPTUNA_VERSION, STUDY_ID = "optuna_version", "study_id"
"""User attributes of a study: the version of Optuna that created it, and a unique id."""

STARTING_VALUES = "starting_values"
"""User attribute of a study: the values of its first trials, since an earlier study that they are taken from
may grow. The points of a grid are omitted: they follow from params.yaml."""


@dataclass(frozen=True)
class Search:
    """A hyperparameter search and its Optuna study.

    Attributes:
        params: all parameters of params.yaml.
        reviews: training data.
        storage: Optuna storage of the study.
        name: name of the study.
    """

    params: Params
    reviews: TrainingData
    storage: BaseStorage
    name: str

    @property
    def folder(self) -> Path:
        """Folder of the locks, checkpoints and models of the trials."""
        return repository_root() / paths.STUDIES / self.name

    @property
    def trial_count(self) -> int:
        """Number of trials after which the search is finished."""
        return count_trials(self.params)

    @property
    def study_lock(self) -> FileLock:
        """Lock to hold while a trial is assigned to a worker or while state shared by all workers changes."""
        return FileLock(self.folder / "study.lock")

    @property
    def output_lock(self) -> FileLock:
        """Lock to hold while results are written, since two processes may finish the same search at once."""
        return FileLock(self.folder / "outputs.lock")

    def trial_folder(self, number: int) -> Path:
        """Return the folder of a trial's checkpoint and, once it has finished, of its model."""
        return self.folder / f"trial-{number}"

    @cached_property
    def study_id(self) -> str:
        """Unique id of the study. Studies of one name exist in several storages, or one after the other."""
        return str(self.load_study().user_attrs[STUDY_ID])

    def checkpoint_folder(self, number: int) -> Path:
        """Return the folder of a trial's checkpoint.

        It belongs to one study: a training that resumes does not report the evaluations before its checkpoint
        again, and another study lacks them.
        """
        return self.trial_folder(number) / f"checkpoints-{self.study_id}"

    def load_study(self) -> optuna.Study:
        """Load the study from the storage."""
        return optuna.load_study(study_name=self.name, storage=self.storage)

    def load_trials(self) -> list[FrozenTrial]:
        """Load the first `trial_count` trials; the study has more if `tune.trials` was higher before."""
        return self.load_study().get_trials(deepcopy=False)[: self.trial_count]

    @cached_property
    def starting_values(self) -> list[Combination]:
        """Values of the first trials: of trial 0, then of a grid or of the best trials of another study."""
        if isinstance(self.params.tune.sampler, GridSampling):
            return list_starting_values(self.params, self.storage)
        return list(self.load_study().user_attrs[STARTING_VALUES])

    def is_finished(self) -> bool:
        """Return whether all trials have ended, or too many have failed."""
        trials = self.load_trials()
        have_ended = len(trials) == self.trial_count and all(trial.state.is_finished() for trial in trials)
        return have_ended or has_too_many_failures(trials, self.params.tune.max_failed)

    def load_results(self) -> optuna.Study:
        """Return an in-memory copy of the study with its first `trial_count` trials only.

        The results are therefore the same whether or not `tune.trials` was higher before.

        Raises:
            UserError: too many trials failed, or none finished.
        """
        trials = self.load_trials()
        failed = [trial for trial in trials if trial.state == TrialState.FAIL]
        if has_too_many_failures(trials, self.params.tune.max_failed):
            errors = [f"  trial {trial.number}: {get_error(trial)}" for trial in failed]
            raise UserError(
                "\n".join([f"tune: {len(failed)} trials failed, tune.max_failed stops the search:", *errors])
            )
        if not any(trial.state == TrialState.COMPLETE for trial in trials):
            raise UserError("tune: no trial finished; see each trial's MLflow run for the reason")
        study = optuna.create_study(direction="maximize", study_name=self.name)
        study.add_trials(trials)
        return study


def open_search(params: Params, reviews: TrainingData) -> Search:
    """Open the study for the parameters and the data; create it if it does not exist.

    Raises:
        UserError: the storage cannot be opened, or a starting value is invalid.
    """
    name = compute_study_name(params, reviews)
    storage = open_storage()
    search = Search(params, reviews, storage, name)
    search.folder.mkdir(parents=True, exist_ok=True)
    with search.study_lock:
        _prepare_study(search)
    return search


def compute_study_name(params: Params, reviews: TrainingData, package: Path = PACKAGE) -> str:
    """Return `tune-` followed by a digest of everything that determines the results of a trial.

    Two searches share a study and its trials if they have the same data, search space, sampler, pruner,
    `tune.max_parallel`, fixed parameters, code, library versions, device and precision. The numbers of trials
    and workers may differ.

    Args:
        params: all parameters of params.yaml.
        reviews: training data.
        package: folder of the package `sentiment`.
    """
    train = params.train
    device = resolve_device(train.device)
    splits = reviews.select_splits(unlabelled=reads_unlabelled(params))
    content = {
        "model": params.model.model_dump(),
        "train": train.model_dump(exclude={"threads", "ranks"}),  # trials have others: see apply_values
        "tune": params.tune.model_dump(exclude=LIMITS),
        "vocabulary_size": reviews.vocabulary_size,
        "data": [split.digest for split in splits.values()],
        "code": compute_code_digest(package, FINGERPRINTED_CODE),
        "versions": [torch.__version__, np.__version__, *map(importlib.metadata.version, RESULT_PACKAGES)],
        "arithmetic": [device.type, resolve_precision(train.precision, device)],
    }
    digest = hashlib.md5(json.dumps(content, sort_keys=True).encode(), usedforsecurity=False).hexdigest()
    return f"tune-{digest}"


def reads_unlabelled(params: Params) -> bool:
    """Return whether a trial may read the unlabelled split."""
    return params.train.unlabelled != "ignore" or "train.unlabelled" in params.tune.space


def has_too_many_failures(trials: Sequence[FrozenTrial], limit: int) -> bool:
    """Return whether at least `limit` trials failed."""
    return sum(trial.state == TrialState.FAIL for trial in trials) >= limit


def _prepare_study(search: Search) -> None:
    """Create the study if it does not exist, and complete one that a killed process left incomplete.

    Raises:
        UserError: a starting value is invalid.
    """
    try:
        study = search.load_study()
    except KeyError:
        # Raises an error for invalid values before the study exists.
        list_starting_values(search.params, search.storage)
        study = optuna.create_study(study_name=search.name, storage=search.storage, direction="maximize")
    if OPTUNA_VERSION not in study.user_attrs:
        study.set_user_attr(OPTUNA_VERSION, optuna.__version__)
    if STUDY_ID not in study.user_attrs:
        study.set_user_attr(STUDY_ID, uuid.uuid4().hex)
    if STARTING_VALUES not in study.user_attrs and not isinstance(search.params.tune.sampler, GridSampling):
        study.set_user_attr(STARTING_VALUES, list_starting_values(search.params, search.storage))

"""Studies with the samplers and pruners of params.yaml, whose objective is a formula."""

from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from sentiment.params import Params, load_params
from sentiment.tuning.sampling import build_pruner, build_sampler
from tests.project import ROOT

SPACE = {
    "train.optimizer.learning_rate": {"kind": "float", "low": 1e-4, "high": 1e-1, "log": True},
    "model.dropout.head": {"kind": "float", "low": 0.0, "high": 0.8},
    "model.hidden_units": {"kind": "int", "low": 8, "high": 64},
    "train.clip.kind": {"kind": "categorical", "choices": ["none", "norm", "value"]},
    "train.clip.threshold": {"kind": "float", "low": 0.1, "high": 10.0, "log": True},
}
SAMPLERS = [{"kind": "tpe", "startup_trials": 3}, {"kind": "random"}, {"kind": "gp", "startup_trials": 3}]
MEDIAN = {"kind": "median", "startup_trials": 1, "warmup": 0.25}


def tune_params(**tune: Any) -> Params:
    """The parameters of params.yaml with another section `tune`."""
    content = load_params(ROOT / "params.yaml").model_dump()
    content["tune"].update({"space": SPACE, "trials": 30, "pruner": MEDIAN, **tune})
    return Params.model_validate(content)


def open_study(folder: Path, params: Params) -> optuna.Study:
    """Open a study as another process does, with no earlier draw in memory."""
    storage = JournalStorage(JournalFileBackend(str(folder / "journal")))
    return optuna.create_study(
        direction="maximize",
        study_name="search",
        storage=storage,
        load_if_exists=True,
        sampler=build_sampler(params.tune),
        pruner=build_pruner(params),
    )

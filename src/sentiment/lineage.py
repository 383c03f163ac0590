"""Which run made which DVC output: the two are joined by content, so the join outlives caches and moves."""

import hashlib
import json
from pathlib import Path

from sentiment import paths
from sentiment.model.files import WEIGHTS, load_config
from sentiment.params import Params
from sentiment.params.section import Section
from sentiment.tokens.learning import LearningReviews
from sentiment.tracking import Run, Store, find_tagged_run, start_run
from sentiment.training.device import resolve_device
from sentiment.training.precision import resolve_precision

MODEL_TAG = "model.md5"
PARAMS_TAG = "params.digest"
DATA_TAG = "data.digest"


def model_hash(folder: Path) -> str:
    """Return the MD5 of a model's weights file: the `md5` that `dvc.lock` records for it."""
    with (folder / WEIGHTS).open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def params_digest(*sections: Section) -> str:
    """Return a digest of parameters, equal when all of them are."""
    content = json.dumps([section.model_dump() for section in sections], sort_keys=True)
    return hashlib.md5(content.encode(), usedforsecurity=False).hexdigest()


def log_configuration(run: Run, params: Params, reviews: LearningReviews) -> None:
    """Log what a training run starts from: the parameters of model and training, the data, digests of both.

    Parameters of `train` keep their names as they are (`clip.threshold`), the model's come under `model`.
    The device and the precision are tags as well, since the parameters may leave both to the machine.
    Raises UserError where the device asked for is not there.
    """
    run.log_params({"model": params.model.model_dump(), **params.train.model_dump()})
    splits = reviews.used(unlabelled=params.train.unlabelled != "ignore")
    for name, split in splits.items():
        run.log_data(name, split, paths.tokens(name))
    digests = "".join(split.digest for split in splits.values())
    data = hashlib.md5(digests.encode(), usedforsecurity=False).hexdigest()
    run.tag({PARAMS_TAG: params_digest(params.model, params.train), DATA_TAG: data})
    device = resolve_device(params.train.device)
    run.tag({"device": device.type, "precision": resolve_precision(params.train.precision, device)})


def tag_model(run: Run, folder: Path) -> None:
    """Write into a run which model file it made."""
    run.tag({MODEL_TAG: model_hash(folder)})


def find_run(store: Store, folder: Path, stage: str) -> Run | None:
    """Return the newest run of a stage that made the model in a folder, None where the store has none."""
    return find_tagged_run(store, {MODEL_TAG: model_hash(folder), "stage": stage})


def find_or_adopt_run(store: Store, folder: Path, stage: str) -> Run:
    """Like `find_run`; where the store has none, start one that says where the model came from.

    So it is with a model out of the DVC cache in a store that is new: its stage did not run here.
    """
    found = find_run(store, folder, stage)
    if found is not None:
        return found
    with start_run(store, stage, f"{stage} (from cache)") as run:
        run.log_params({"model": load_config(folder).model.model_dump()})
        tag_model(run, folder)
    return run

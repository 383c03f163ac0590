"""Links between models, MLflow runs and DVC's records; one run per training, even if interrupted."""

import json
import os
import uuid
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import torch

from sentiment import paths
from sentiment.files import compute_file_md5, compute_md5, write_json
from sentiment.model.model_config import CONFIG_FILE, WEIGHTS_FILE, Origin, load_config
from sentiment.params import Params
from sentiment.params.section import Section
from sentiment.settings import repository_root
from sentiment.stage_inputs import parse_lock
from sentiment.tokens.batches import TrainingData
from sentiment.tracking import Run, Store, build_run_name, find_tagged_run, open_store, reopen_run, start_run
from sentiment.tracking.origin_tags import (
    CODE_TAG,
    DATA_TAG,
    MODEL_COMMIT_TAG,
    MODEL_TAG,
    UNKNOWN,
    build_origin_tags,
)
from sentiment.tracking.provenance import INPUT_TAG, compute_dvc_hashes
from sentiment.training.checkpoint import Checkpoint
from sentiment.training.fingerprint import PACKAGE, compute_code_digest
from sentiment.training.runtime import resolve_device, resolve_precision

TRAINING_INPUTS = (
    *(paths.reviews(split) for split in paths.LEARNED_SPLITS),
    paths.TOKENIZER,
    *(paths.tokens(split) for split in paths.LEARNED_SPLITS),
)
"""Files that a training reads, and the reviews they were built from. Only evaluate reads holdout and test."""

MODEL_SECTIONS = ("download", "tokenize", "model", "train")
"""Sections of params.yaml that determine a trained model."""

SECTIONS_BY_STAGE = {"train": ("model", "train"), "tune": ("tune",)}
"""Sections in a stage's entry of `dvc.lock` that describe its model, by stage. For `tune` they exclude
`model` and `train`, since the best trial drew values of its own for them.
"""


def compute_model_hash(folder: Path) -> str:
    """Return the MD5 of a model's weights file, as `dvc.lock` records it."""
    return compute_file_md5(folder / WEIGHTS_FILE)


def compute_params_digest(*sections: Section) -> str:
    """Compute the MD5 of all values in sections of params.yaml."""
    return _md5(json.dumps([section.model_dump() for section in sections], sort_keys=True))


def build_origin(
    params: Params, reviews: TrainingData, study: str | None = None, trial: int | None = None
) -> Origin:
    """Return the digests of parameters, data and code that identify a training.

    Args:
        params: all parameters of params.yaml; for a trial, with the values that it drew.
        reviews: training data.
        study: name of the study; None if the training is not a trial.
        trial: number of the trial in the study; None if the training is not a trial.
    """
    used_splits = reviews.select_splits(unlabelled=params.train.unlabelled != "ignore")
    return Origin(
        params=compute_params_digest(params.model, params.train),
        data=_md5("".join(split.digest for split in used_splits.values())),
        code=_md5(" ".join([compute_code_digest(PACKAGE), torch.__version__, np.__version__])),
        study=study,
        trial=trial,
    )


def start_stage_run(store: Store, stage: str, params: Params, origin: Origin, tags: Mapping[str, str]) -> Run:
    """Start a run whose name distinguishes it from the previous run of its stage.

    Args:
        store: tracking store.
        stage: name of the stage, `train` or `tune`.
        params: all parameters of params.yaml.
        origin: digests that identify the training, from `build_origin`.
        tags: additional tags of the run, by name.
    """
    digests = {DATA_TAG: origin.data, CODE_TAG: origin.code}
    sections = {*MODEL_SECTIONS, *SECTIONS_BY_STAGE[stage]}
    name = build_run_name(store, stage, params.model_dump(include=sections), digests)
    return start_run(store, stage, name, tags={**digests, **tags})


def log_configuration(
    run: Run,
    params: Params,
    reviews: TrainingData,
    origin: Origin,
    sections: Collection[str] = MODEL_SECTIONS,
) -> None:
    """Log the parameters, datasets and digests of a training.

    Device and precision are logged as tags as well, since the parameters may leave them open (`auto`).

    Args:
        run: run to log to.
        params: all parameters of params.yaml; for a trial, with the values that it drew.
        reviews: training data.
        origin: digests that identify the training, from `build_origin`.
        sections: names of the sections of params.yaml to log.

    Raises:
        UserError: the requested device is not available.
    """
    run.log_params(params.model_dump(include=set(sections)))
    log_datasets(run, params, reviews)
    device = resolve_device(params.train.device)
    precision = resolve_precision(params.train.precision, device)
    run.tag({**build_origin_tags(origin), "device": device.type, "precision": precision})


def log_datasets(run: Run, params: Params, reviews: TrainingData) -> None:
    """Log the splits that a training uses as inputs of the run."""
    for name, split in reviews.select_splits(unlabelled=params.train.unlabelled != "ignore").items():
        run.log_data(name, split, paths.tokens(name))


def tag_run_with_model(run: Run, folder: Path) -> None:
    """Tag a run with the MD5 of the weights that it trained and with the digests of the model's origin."""
    run.tag({MODEL_TAG: compute_model_hash(folder), **build_origin_tags(load_config(folder).origin)})


def find_model_run(store: Store, folder: Path, stage: str) -> Run | None:
    """Return the newest run of a stage that trained the model in a folder; None if the store has none.

    Both the weights and the model's origin must match, since different parameters, data or code may produce
    identical weights.
    """
    origin = load_config(folder).origin
    tags = {MODEL_TAG: compute_model_hash(folder), "stage": stage, **build_origin_tags(origin)}
    return find_tagged_run(store, tags)


def find_or_create_model_run(store: Store, folder: Path, stage: str) -> Run:
    """Return the run that trained the model in a folder; create one if the store has none.

    The store has none if, for example, it is new and DVC restored the model from its cache. A created run
    gets the parameters, inputs and digests that the model's files and `dvc.lock` record. It gets no commit,
    since the model may have been trained at another commit than the current one.
    """
    found = find_model_run(store, folder, stage)
    if found is not None:
        return found
    config, md5 = load_config(folder), compute_model_hash(folder)
    tags = {**build_origin_tags(config.origin), MODEL_TAG: md5, MODEL_COMMIT_TAG: UNKNOWN}
    with start_run(store, stage, f"{stage} from cache · model {md5[:7]}", tags=tags, source={}) as run:
        locked_params, locked_inputs = _read_lock_entry(folder, stage)
        run.log_params({**locked_params, "model": config.model.model_dump()})
        run.tag({f"{INPUT_TAG}{path}": md5 for path, md5 in locked_inputs.items()})
    return run


def _read_lock_entry(folder: Path, stage: str) -> tuple[Mapping[str, object], dict[str, str]]:
    """Return the parameters and the input hashes that `dvc.lock` records for a model.

    Both are empty if `dvc.lock` is missing or records other model files.
    """
    try:
        entry = parse_lock(paths.LOCK.read_text(encoding="utf-8")).get(stage, {})
    except (OSError, UnicodeDecodeError):
        return {}, {}
    outputs = {out.get("path"): out.get("md5") for out in entry.get("outs") or []}
    files = compute_dvc_hashes([folder / WEIGHTS_FILE, folder / CONFIG_FILE])
    if any(outputs.get(path) != md5 for path, md5 in files.items()):
        return {}, {}
    section_values = (entry.get("params") or {}).get(paths.PARAMS.name) or {}
    params = {name: section_values[name] for name in SECTIONS_BY_STAGE[stage] if name in section_values}
    return params, {dep["path"]: dep["md5"] for dep in entry.get("deps") or [] if "md5" in dep}


def _md5(content: str) -> str:
    return compute_md5(content.encode())


STAGE = "train"
TRAINING_TAG = "train.id"
"""Name of the run's tag and of the checkpoint's note that hold the id of the training. The note is written
before the run starts, so that a restart always finds the run."""

LAST_TRAINING = Path("mlruns/last-training.json")
"""Record of the last training: its fingerprint (`key`), its id and, once it has finished, its model's MD5.

It is retained after the checkpoint is deleted, since DVC may be killed before it records the outputs, and the
store may fail before it has the run's final status.
"""


def open_training_run(checkpoint: Checkpoint | None, params: Params, origin: Origin) -> Run:
    """Resume the MLflow run of a training; start a run if the store has none.

    Args:
        checkpoint: checkpoint of the training; None if another process trains the same configuration.
        params: all parameters of params.yaml.
        origin: digests that identify the training, from `build_origin`.
    """
    store = open_store()
    if checkpoint is None:
        return start_stage_run(store, STAGE, params, origin, {})
    training_id = (
        checkpoint.notes.get(TRAINING_TAG)
        or _find_unfinished_training(store, checkpoint.fingerprint)
        or uuid.uuid4().hex
    )
    _record_last_training(checkpoint, training_id)
    tags = {TRAINING_TAG: training_id}
    found = find_tagged_run(store, tags)
    reopened = reopen_run(store, found.id) if found else None
    return reopened or start_stage_run(store, STAGE, params, origin, tags)


def record_finished_training(checkpoint: Checkpoint | None, model: Path) -> None:
    """Record the id of a finished training and the MD5 of its model, before the checkpoint is deleted.

    Args:
        checkpoint: checkpoint of the training; None if there is none, so that nothing is recorded.
        model: folder of the trained model.
    """
    if checkpoint:
        _record_last_training(checkpoint, checkpoint.notes[TRAINING_TAG], compute_model_hash(model))


def _record_last_training(checkpoint: Checkpoint, training_id: str, model_md5: str | None = None) -> None:
    record = {"key": checkpoint.fingerprint, "id": training_id, "md5": model_md5}
    write_json(repository_root() / LAST_TRAINING, record)
    checkpoint.write_note(TRAINING_TAG, training_id)


def _find_unfinished_training(store: Store, fingerprint: str) -> str | None:
    """Return the id of the last training if it has this fingerprint and did not complete; otherwise None.

    It did not complete if its run still has the status RUNNING (the caller holds the checkpoint's lock, so no
    other process is training), or if it finished but DVC did not record the model.
    """
    path = repository_root() / LAST_TRAINING
    try:
        last = json.loads(path.read_bytes())
        has_fingerprint = last["key"] == fingerprint
        training_id, model_md5 = str(last["id"]), last["md5"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    run = find_tagged_run(store, {TRAINING_TAG: training_id}) if has_fingerprint else None
    if run is None:
        return None
    is_running = store.client.get_run(run.id).info.status == "RUNNING"
    # Outside DVC, nothing records the model, so each call starts a new training.
    is_lost = (
        model_md5 is not None
        and "DVC_STAGE" in os.environ
        and not _is_recorded_by_dvc(model_md5, path.stat().st_mtime_ns)
    )
    return training_id if is_running or is_lost else None


def _is_recorded_by_dvc(model_md5: str, since_ns: int) -> bool:
    """Return whether `dvc.lock` records this model and was written at or after `since_ns`."""
    try:
        stages = parse_lock(paths.LOCK.read_text(encoding="utf-8", errors="replace"))
        outputs = {out["path"]: out["md5"] for out in stages[STAGE]["outs"]}
    except (OSError, KeyError, TypeError):
        return False
    recorded_md5 = outputs.get((paths.model("baseline") / WEIGHTS_FILE).as_posix())
    return recorded_md5 == model_md5 and paths.LOCK.stat().st_mtime_ns >= since_ns

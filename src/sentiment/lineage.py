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
from sentiment.model.model_files import CONFIG_FILE, WEIGHTS_FILE, Origin, load_config
from sentiment.params import Params
from sentiment.params.section import Section
from sentiment.settings import repository_root
from sentiment.tokens.batches import TrainingData
from sentiment.tracking import Run, Store, build_run_name, find_tagged_run, open_store, reopen_run, start_run
from sentiment.tracking.provenance import INPUT_TAG, compute_dvc_hashes, parse_lock
from sentiment.training.checkpoint import Checkpoint
from sentiment.training.fingerprint import PACKAGE, compute_code_digest
from sentiment.training.runtime import resolve_device, resolve_precision

MODEL_TAG = "model.md5"
PARAMS_TAG = "params.digest"
DATA_TAG = "data.digest"
CODE_TAG = "code.digest"
STUDY_TAG, TRIAL_TAG = "tune.study", "tune.trial"
"""Name of the study and number of the trial in it, on the runs of trials."""

UNKNOWN = "unknown"
MODEL_COMMIT_TAG = "git.commit_of_model"
"""Set to UNKNOWN on the run of a model that this store has not seen trained: its commit is not known."""

TRAINING_INPUTS = (
    *(paths.reviews(split) for split in (*paths.LEARNING_SPLITS, "unlabelled")),
    paths.TOKENIZER,
    *(paths.tokens(split) for split in (*paths.LEARNING_SPLITS, "unlabelled")),
)
"""The data that a training reads, and the reviews it was made from. Only evaluate reads the test split."""

MODEL_SECTIONS = ("download", "tokenize", "model", "train")
"""Sections of params.yaml that determine a trained model."""

SECTIONS_BY_STAGE = {"train": ("model", "train"), "tune": ("tune",)}
"""Parameters in a stage's entry of `dvc.lock` that hold for its model. The best trial drew its own for model
and train.
"""


def compute_model_hash(folder: Path) -> str:
    """Return the MD5 of a model's weights file: the `md5` that `dvc.lock` records for it."""
    return compute_file_md5(folder / WEIGHTS_FILE)


def params_digest(*sections: Section) -> str:
    """Return the MD5 of parameters, equal if and only if all values are equal."""
    return _md5(json.dumps([section.model_dump() for section in sections], sort_keys=True))


def build_origin(
    params: Params, reviews: TrainingData, study: str | None = None, trial: int | None = None
) -> Origin:
    """Return the digests of parameters, data and code that identify a training.

    Args:
        params: the whole of params.yaml; for a trial, with the values that it drew.
        reviews: the training data.
        study: name of the study, for a trial.
        trial: its number in the study.
    """
    used = reviews.select_splits(unlabelled=params.train.unlabelled != "ignore")
    return Origin(
        params=params_digest(params.model, params.train),
        data=_md5("".join(split.digest for split in used.values())),
        code=_md5(" ".join([compute_code_digest(PACKAGE), torch.__version__, np.__version__])),
        study=study,
        trial=trial,
    )


def start_stage_run(store: Store, stage: str, params: Params, origin: Origin, tags: Mapping[str, str]) -> Run:
    """Start a run whose name distinguishes it from the previous one of its stage.

    Args:
        store: the tracking store.
        stage: `train` or `tune`.
        params: the whole of params.yaml.
        origin: of the configuration in params.yaml, from `build_origin`.
        tags: further tags of the run.
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
    """Log the parameters, the datasets and the digests that a training starts from.

    Device and precision are tags as well, since the parameters may leave both to the machine (`auto`).

    Args:
        run: the run.
        params: the whole of params.yaml; for a trial, with the values that it drew.
        reviews: the training data.
        origin: of the model, from `build_origin`.
        sections: the sections of params.yaml to log.

    Raises:
        UserError: the requested device is not available.
    """
    run.log_params(params.model_dump(include=set(sections)))
    log_datasets(run, params, reviews)
    device = resolve_device(params.train.device)
    precision = resolve_precision(params.train.precision, device)
    run.tag({**_origin_tags(origin), "device": device.type, "precision": precision})


def log_datasets(run: Run, params: Params, reviews: TrainingData) -> None:
    """Log the splits that a training uses as inputs of the run."""
    for name, split in reviews.select_splits(unlabelled=params.train.unlabelled != "ignore").items():
        run.log_data(name, split, paths.tokens(name))


def tag_model(run: Run, folder: Path) -> None:
    """Tag a run with the model that it trained: the MD5 of the weights, and the digests of its origin."""
    run.tag({MODEL_TAG: compute_model_hash(folder), **_origin_tags(load_config(folder).origin)})


def find_model_run(store: Store, folder: Path, stage: str) -> Run | None:
    """Return the newest run of a stage that trained the model in a folder; None if the store has none.

    The run must match the weights and the origin in the configuration beside them: different parameters, data
    or code may lead to equal weights.
    """
    origin = load_config(folder).origin
    tags = {MODEL_TAG: compute_model_hash(folder), "stage": stage, **_origin_tags(origin)}
    return find_tagged_run(store, tags)


def find_or_create_model_run(store: Store, folder: Path, stage: str) -> Run:
    """Return the run that trained the model in a folder; create one if the store has none.

    The store has none if DVC restored the model from its cache and the store is new. The created run has what
    the model's files and `dvc.lock` record, and no commit: the current one need not be the model's.
    """
    found = find_model_run(store, folder, stage)
    if found is not None:
        return found
    config, md5 = load_config(folder), compute_model_hash(folder)
    tags = {**_origin_tags(config.origin), MODEL_TAG: md5, MODEL_COMMIT_TAG: UNKNOWN}
    with start_run(store, stage, f"{stage} from cache · model {md5[:7]}", tags=tags, source={}) as run:
        locked_params, locked_inputs = _read_lock_entry(folder, stage)
        run.log_params({**locked_params, "model": config.model.model_dump()})
        run.tag({f"{INPUT_TAG}{path}": md5 for path, md5 in locked_inputs.items()})
    return run


def _origin_tags(origin: Origin | None) -> dict[str, str]:
    if origin is None:
        return dict.fromkeys((PARAMS_TAG, DATA_TAG, CODE_TAG), UNKNOWN)
    tags = {PARAMS_TAG: origin.params, DATA_TAG: origin.data, CODE_TAG: origin.code}
    if origin.study is not None:
        tags |= {STUDY_TAG: origin.study, TRIAL_TAG: str(origin.trial)}
    return tags


def _read_lock_entry(folder: Path, stage: str) -> tuple[Mapping[str, object], dict[str, str]]:
    """Return the parameters and the input hashes that `dvc.lock` records for a model.

    Both are empty if the model's files are not those that it records.
    """
    try:
        entry = parse_lock(paths.LOCK.read_text(encoding="utf-8")).get(stage, {})
    except (OSError, UnicodeDecodeError):
        return {}, {}
    outputs = {out.get("path"): out.get("md5") for out in entry.get("outs") or []}
    files = compute_dvc_hashes([folder / WEIGHTS_FILE, folder / CONFIG_FILE])
    if any(outputs.get(path) != md5 for path, md5 in files.items()):
        return {}, {}
    named = (entry.get("params") or {}).get(paths.PARAMS.name) or {}
    params = {name: named[name] for name in SECTIONS_BY_STAGE[stage] if name in named}
    return params, {dep["path"]: dep["md5"] for dep in entry.get("deps") or [] if "md5" in dep}


def _md5(content: str) -> str:
    return compute_md5(content.encode())


STAGE = "train"
TRAINING_TAG = "train.id"
"""Tag of the run, and note in the checkpoint. It is written there first, so every run can be found again."""

LAST_TRAINING = Path("mlruns/last-training.json")
"""Key and id of the last training and, once it has finished, its model's MD5. It outlives the checkpoint: DVC
may be killed before it records the outputs, and the store may fail before the run's final status is written.
"""


def open_training_run(checkpoint: Checkpoint | None, params: Params, origin: Origin) -> Run:
    """Resume the run of this training if the store still has it; else start one.

    Args:
        checkpoint: None if another process trains the same configuration.
        params: the whole of params.yaml.
        origin: of the model, from `build_origin`.
    """
    store = open_store()
    if checkpoint is None:
        return start_stage_run(store, STAGE, params, origin, {})
    training = (
        checkpoint.notes.get(TRAINING_TAG)
        or _find_unfinished(store, checkpoint.fingerprint)
        or uuid.uuid4().hex
    )
    _record_last(checkpoint, training)
    tags = {TRAINING_TAG: training}
    found = find_tagged_run(store, tags)
    reopened = reopen_run(store, found.id) if found else None
    return reopened or start_stage_run(store, STAGE, params, origin, tags)


def record_finished_training(checkpoint: Checkpoint | None, model: Path) -> None:
    """Record which run trained the model; the checkpoint, which has that too, is deleted next."""
    if checkpoint:
        _record_last(checkpoint, checkpoint.notes[TRAINING_TAG], compute_model_hash(model))


def _record_last(checkpoint: Checkpoint, training: str, md5: str | None = None) -> None:
    write_json(repository_root() / LAST_TRAINING, {"key": checkpoint.fingerprint, "id": training, "md5": md5})
    checkpoint.write_note(TRAINING_TAG, training)


def _find_unfinished(store: Store, key: str) -> str | None:
    """Return the id of the last training if it has this key and its result was lost.

    That is so if its run still has the status RUNNING (the checkpoint's lock shows that no process trains),
    or if it finished, but DVC did not record the model.
    """
    path = repository_root() / LAST_TRAINING
    try:
        last = json.loads(path.read_bytes())
        same_key, training, md5 = last["key"] == key, str(last["id"]), last["md5"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    found = find_tagged_run(store, {TRAINING_TAG: training}) if same_key else None
    if found is None:
        return None
    is_running = store.client.get_run(found.id).info.status == "RUNNING"
    # Without DVC, nothing records the model, so each call is a training of its own.
    is_lost = md5 is not None and "DVC_STAGE" in os.environ and not _is_recorded(md5, path.stat().st_mtime_ns)
    return training if is_running or is_lost else None


def _is_recorded(md5: str, since_ns: int) -> bool:
    """Return whether DVC has written dvc.lock since that time, with that model."""
    try:
        stages = parse_lock(paths.LOCK.read_text(encoding="utf-8", errors="replace"))
        outputs = {out["path"]: out["md5"] for out in stages[STAGE]["outs"]}
    except (OSError, KeyError, TypeError):
        return False
    recorded = outputs.get((paths.model("baseline") / WEIGHTS_FILE).as_posix())
    return recorded == md5 and paths.LOCK.stat().st_mtime_ns >= since_ns

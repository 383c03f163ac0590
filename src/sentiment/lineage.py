"""The MLflow run of `train`: one for each training, however often its process is killed."""

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
from sentiment.tracking import Run, Store, find_tagged_run, open_store, reopen_run, start_run
from sentiment.tracking.provenance import dvc_hashes, locked_stages
from sentiment.tracking.run_inputs import INPUT_TAG, log_parameters
from sentiment.training.checkpoint import Checkpoint
from sentiment.training.fingerprint import PACKAGE, compute_code_digest
from sentiment.training.runtime import resolve_device, resolve_precision

MODEL_TAG = "model.md5"
PARAMS_TAG = "params.digest"
DATA_TAG = "data.digest"
CODE_TAG = "code.digest"
STUDY_TAG, TRIAL_TAG = "tune.study", "tune.trial"
"""Name of the study and number of the trial in it, on runs of trials."""

UNKNOWN = "unknown"
COMMIT_TAG = "git.commit_of_model"
"""On a run of a model whose training this store has not seen: there is no commit to name."""

DATA_OF_TRAINING = (
    *(paths.reviews(split) for split in (*paths.LEARNING_SPLITS, "unlabelled")),
    paths.TOKENIZER,
    *(paths.tokens(split) for split in (*paths.LEARNING_SPLITS, "unlabelled")),
)
"""What a training learns from, and what that was made of. The test split is for evaluate alone."""

DECIDING_SECTIONS = ("download", "tokenize", "model", "train")
"""Of params.yaml, those that decide a trained model."""

SECTIONS_OF_STAGE = {"train": ("model", "train"), "tune": ("tune",)}
"""Parameters that a stage's entry in `dvc.lock` names. The best trial drew others for model and train."""


def model_hash(folder: Path) -> str:
    """Return the MD5 of a model's weights file: the `md5` that `dvc.lock` records for it."""
    return compute_file_md5(folder / WEIGHTS_FILE)


def params_digest(*sections: Section) -> str:
    """Return a digest of parameters, equal when all of them are."""
    return _md5(json.dumps([section.model_dump() for section in sections], sort_keys=True))


def origin_of(
    params: Params, reviews: TrainingData, study: str | None = None, trial: int | None = None
) -> Origin:
    """Return what a training with these parameters on this data, by the present code, is known by."""
    used = reviews.select_splits(unlabelled=params.train.unlabelled != "ignore")
    return Origin(
        params=params_digest(params.model, params.train),
        data=_md5("".join(split.digest for split in used.values())),
        code=_md5(" ".join([compute_code_digest(PACKAGE), torch.__version__, np.__version__])),
        study=study,
        trial=trial,
    )


def log_configuration(
    run: Run,
    params: Params,
    reviews: TrainingData,
    origin: Origin,
    sections: Collection[str] = DECIDING_SECTIONS,
) -> None:
    """Log what a training run starts from: parameters, the data, digests of what trains the model.

    The device and the precision are tags as well, since the parameters may leave both to the machine.

    Args:
        run: the run.
        params: the whole of params.yaml; of a trial with the values that it drew.
        reviews: what the model learns from.
        origin: of the model, from `origin_of`.
        sections: of params.yaml, those that are logged.

    Raises:
        UserError: the device asked for is not there.
    """
    log_parameters(run, params.model_dump(include=set(sections)))
    for name, split in reviews.select_splits(unlabelled=params.train.unlabelled != "ignore").items():
        run.log_data(name, split, paths.tokens(name))
    device = resolve_device(params.train.device)
    precision = resolve_precision(params.train.precision, device)
    run.tag({**_origin_tags(origin), "device": device.type, "precision": precision})


def tag_model(run: Run, folder: Path) -> None:
    """Write into a run which model it made: the MD5 of the weights, and what trained them."""
    run.tag({MODEL_TAG: model_hash(folder), **_origin_tags(load_config(folder).origin)})


def find_run(store: Store, folder: Path, stage: str) -> Run | None:
    """Return the newest run of a stage that trained the model in a folder, None where the store has none.

    By the weights and by what trained them, which the configuration beside them says: runs that made equal
    weights of other parameters, data or code are others.
    """
    origin = load_config(folder).origin
    return find_tagged_run(store, {MODEL_TAG: model_hash(folder), "stage": stage, **_origin_tags(origin)})


def find_or_adopt_run(store: Store, folder: Path, stage: str) -> Run:
    """Like `find_run`; where the store has none, start one that says where the model came from.

    So it is with a model out of the DVC cache in a store that is new: its stage did not run here. The run has
    what the model's files and `dvc.lock` say, and no commit: the present one need not be the model's.
    """
    found = find_run(store, folder, stage)
    if found is not None:
        return found
    config = load_config(folder)
    tags = {**_origin_tags(config.origin), MODEL_TAG: model_hash(folder), COMMIT_TAG: UNKNOWN}
    with start_run(store, stage, f"{stage} (from cache)", tags=tags, source={}) as run:
        locked_params, locked_inputs = _locked(folder, stage)
        log_parameters(run, {**locked_params, "model": config.model.model_dump()})
        run.tag({f"{INPUT_TAG}{path}": md5 for path, md5 in locked_inputs.items()})
    return run


def _origin_tags(origin: Origin | None) -> dict[str, str]:
    if origin is None:
        return dict.fromkeys((PARAMS_TAG, DATA_TAG, CODE_TAG), UNKNOWN)
    tags = {PARAMS_TAG: origin.params, DATA_TAG: origin.data, CODE_TAG: origin.code}
    if origin.study is not None:
        tags |= {STUDY_TAG: origin.study, TRIAL_TAG: str(origin.trial)}
    return tags


def _locked(folder: Path, stage: str) -> tuple[Mapping[str, object], dict[str, str]]:
    """Return the parameters and the hashes of inputs by which `dvc.lock` says that a model was made.

    Nothing where the files of the model are other than those that it names.
    """
    try:
        entry = locked_stages(paths.LOCK.read_text(encoding="utf-8")).get(stage, {})
    except (OSError, UnicodeDecodeError):
        return {}, {}
    outputs = {out.get("path"): out.get("md5") for out in entry.get("outs") or []}
    files = dvc_hashes([folder / WEIGHTS_FILE, folder / CONFIG_FILE])
    if any(outputs.get(path) != md5 for path, md5 in files.items()):
        return {}, {}
    named = (entry.get("params") or {}).get(paths.PARAMS.name) or {}
    params = {name: named[name] for name in SECTIONS_OF_STAGE[stage] if name in named}
    return params, {dep["path"]: dep["md5"] for dep in entry.get("deps") or [] if "md5" in dep}


def _md5(content: str) -> str:
    return compute_md5(content.encode())


STAGE = "train"
IDENTITY_TAG = "train.id"
"""Tag of the run, and note in the checkpoint: written there first, so that every run can be found again."""

LAST = Path("mlruns/last-training.json")
"""Key, identity and, once it has ended, model of the last training. It outlives the checkpoint: DVC may be
killed before it records the outputs, and the store may fail before it knows how the run ended."""


def open_run(checkpoint: Checkpoint | None) -> Run:
    """Resume the run of this training, where the store still has it; else start one.

    Args:
        checkpoint: None where another process trains the same configuration.
    """
    store = open_store()
    if checkpoint is None:
        return start_run(store, STAGE, STAGE)
    identity = (
        checkpoint.notes.get(IDENTITY_TAG) or _unfinished(store, checkpoint.fingerprint) or uuid.uuid4().hex
    )
    _note_last(checkpoint, identity)
    tags = {IDENTITY_TAG: identity}
    found = find_tagged_run(store, tags)
    reopened = reopen_run(store, found.id) if found else None
    return reopened or start_run(store, STAGE, STAGE, tags=tags)


def note_ended(checkpoint: Checkpoint | None, model: Path) -> None:
    """Keep which run made the model: its checkpoint, which knows that too, is about to be removed."""
    if checkpoint:
        _note_last(checkpoint, checkpoint.notes[IDENTITY_TAG], model_hash(model))


def _note_last(checkpoint: Checkpoint, identity: str, md5: str | None = None) -> None:
    write_json(repository_root() / LAST, {"key": checkpoint.fingerprint, "id": identity, "md5": md5})
    checkpoint.note(IDENTITY_TAG, identity)


def _unfinished(store: Store, key: str) -> str | None:
    """Return the identity of the last training, if that was this one and nobody has its result.

    That is so where its run still seems to run (the lock of the checkpoint says that it does not), and where
    it ended, but DVC never recorded the model.
    """
    path = repository_root() / LAST
    try:
        last = json.loads(path.read_bytes())
        ours, identity, md5 = last["key"] == key, str(last["id"]), last["md5"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    found = find_tagged_run(store, {IDENTITY_TAG: identity}) if ours else None
    if found is None:
        return None
    is_running = store.client.get_run(found.id).info.status == "RUNNING"
    # By hand, without DVC, there is nobody to record a model: each call is a training of its own.
    is_lost = md5 is not None and "DVC_STAGE" in os.environ and not _is_recorded(md5, path.stat().st_mtime_ns)
    return identity if is_running or is_lost else None


def _is_recorded(md5: str, since: int) -> bool:
    """Whether DVC has written dvc.lock since then (in nanoseconds), and that model into it."""
    try:
        stages = locked_stages(paths.LOCK.read_text(encoding="utf-8", errors="replace"))
        outputs = {out["path"]: out["md5"] for out in stages[STAGE]["outs"]}
    except (OSError, KeyError, TypeError):
        return False
    recorded = outputs.get((paths.model("baseline") / WEIGHTS_FILE).as_posix())
    return recorded == md5 and paths.LOCK.stat().st_mtime_ns >= since

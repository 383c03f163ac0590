"""The MLflow run of `train`: one for each training, however often its process is killed."""

import json
import os
import uuid
from pathlib import Path

from sentiment import paths
from sentiment.lineage import model_hash
from sentiment.model.files import WEIGHTS
from sentiment.outputs import write_json
from sentiment.settings import repository_root
from sentiment.tracking import Run, Store, find_tagged_run, open_store, reopen_run, start_run
from sentiment.tracking.source import locked_stages
from sentiment.training.checkpoints import Checkpoint

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
    identity = checkpoint.notes.get(IDENTITY_TAG) or _unfinished(store, checkpoint.key) or uuid.uuid4().hex
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
    write_json(repository_root() / LAST, {"key": checkpoint.key, "id": identity, "md5": md5})
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
    recorded = outputs.get((paths.model("baseline") / WEIGHTS).as_posix())
    return recorded == md5 and paths.LOCK.stat().st_mtime_ns >= since

"""Checkpoints: a training run that is killed at any moment resumes with the same result, bit for bit."""

import json
import logging
import os
import shutil
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sentiment.errors import TrainingDivergedError
from sentiment.files import atomic_write, write_json
from sentiment.training.epoch_metrics import EpochMetrics
from sentiment.training.fingerprint import TrainingFingerprint
from sentiment.training.state import EPOCHS, TrainingState

logger = logging.getLogger(__name__)

TENSOR = "tensor"
"""In the JSON part of a checkpoint file, `{"tensor": name}` replaces the tensor of that name."""

STATE_FILE = "state.safetensors"
NOTES_FILE = "notes.json"
FINGERPRINT_FILE = "fingerprint.json"
"""Parts of the run's fingerprint, to explain to a run that differs only in numerics why it cannot resume."""

RETENTION_DAYS = 14
"""Older checkpoints of other runs are deleted: each takes a few hundred megabytes."""


class CorruptCheckpointError(Exception):
    """A checkpoint file is corrupt, truncated or of another training run."""


def write_checkpoint_file(path: Path, state: Mapping[str, Any]) -> None:
    """Write a state atomically: after a kill or a power failure, the file is either the old or the new one.

    The state is a nested dictionary, with string keys, of tensors and JSON values.
    """
    tensors: dict[str, Tensor] = {}
    content = json.dumps(_extract_tensors(state, "", tensors))
    with atomic_write(path) as temporary:
        save_file(tensors, temporary, {"content": content, "checksum": _compute_checksum(content, tensors)})
        _fsync(temporary)
    _fsync(path.parent)


def read_checkpoint_file(path: Path) -> dict[str, Any]:
    """Return the state in a file, equal to the one written, floats to the last bit.

    Raises:
        FileNotFoundError: if there is no such file.
        CorruptCheckpointError: if the file is corrupt or truncated.
    """
    if not path.exists():
        raise FileNotFoundError(path)
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            # Clones are aligned as torch aligns its own tensors, and the file need not stay mapped.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        if header["checksum"] != _compute_checksum(header["content"], tensors):
            raise CorruptCheckpointError(f"{path}: the checksum does not match")
        return dict(json.loads(header["content"], object_hook=lambda value: _insert_tensor(value, tensors)))
    except (SafetensorError, KeyError, ValueError) as error:
        raise CorruptCheckpointError(f"{path}: {error}") from None


class Checkpoint:
    """The last saved state of one training run, in a folder.

    The best weights, which change at most once per epoch, have a file of their own; the state names the epoch
    that they are of. Notes are strings, by name, that the caller needs when the run resumes.
    """

    def __init__(self, folder: Path, fingerprint: str, minutes: float) -> None:
        """Read the folder. A corrupt or incompatible checkpoint is ignored with a warning.

        Args:
            folder: of the run.
            fingerprint: of the run, see `compute_fingerprint`.
            minutes: least time between two saved states within an epoch.
        """
        self.folder = folder
        self.fingerprint = fingerprint
        self.seconds = 60 * minutes
        self.notes: dict[str, str] = self._read_notes()
        self._best: int | None = None
        self._saved = self._read()
        self._last_saved_at = time.monotonic()

    @property
    def epochs(self) -> list[EpochMetrics]:
        """Completed epochs of the saved state; empty without one, or after `restore` has used it."""
        return EPOCHS.validate_python(self._saved["state"]["epochs"]) if self._saved else []

    @property
    def has_state(self) -> bool:
        """Whether a state is saved, of this run or of a nested checkpoint."""
        return any(self.folder.rglob(STATE_FILE))

    def write_note(self, name: str, value: str) -> None:
        """Write a note to the folder at once, also before the first state is saved."""
        self.notes[name] = value
        write_json(self.folder / NOTES_FILE, self.notes)

    def nested(self, name: str) -> "Checkpoint":
        """Return the checkpoint of a training within this run, in a subfolder of this one."""
        return Checkpoint(self.folder / name, f"{self.fingerprint}/{name}", self.seconds / 60)

    def restore(self, state: TrainingState) -> None:
        """Restore the saved state into that of a new run, if there is one, and log where training resumes."""
        if self._saved is None:
            return
        state.load_state_dict(self._saved["state"], self._saved["best_weights"])
        self._saved = None  # large, and no longer needed
        written = _format_time((self.folder / STATE_FILE).stat().st_mtime)
        logger.info(f"resuming at {state.describe_position()} (checkpoint of {written})")

    def save_if_due(self, state: TrainingState) -> None:
        """Save the state if the last one is old enough."""
        if time.monotonic() - self._last_saved_at >= self.seconds:
            self.save(state)

    def save(self, state: TrainingState) -> None:
        """Save the state in place of the last one. If that fails, log a warning: training can continue."""
        best = state.best.epoch if state.epochs else None
        try:
            if best is not None and best != self._best:
                self._write(self._best_file(best), weights=state.best_weights)
            self._write(self.folder / STATE_FILE, best=best, state=state.state_dict())
            if self._best not in (None, best):
                self._best_file(self._best).unlink(missing_ok=True)
            self._best = best
        except (OSError, SafetensorError) as error:
            logger.warning(f"cannot write a checkpoint, training continues without it: {error}")
        self._last_saved_at = time.monotonic()

    def delete(self) -> None:
        """Delete the folder when the run has completed."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _read(self) -> dict[str, Any] | None:
        try:
            content = self._read_matching(self.folder / STATE_FILE)
            best = content["best"]
            weights = {} if best is None else self._read_matching(self._best_file(best))["weights"]
        except (FileNotFoundError, CorruptCheckpointError) as error:
            if (self.folder / STATE_FILE).exists():
                logger.warning(f"cannot use the checkpoint, training starts from the beginning: {error}")
            return None
        self._best = best
        return {"state": content["state"], "best_weights": weights}

    def _read_matching(self, path: Path) -> dict[str, Any]:
        content = read_checkpoint_file(path)
        if content.get("fingerprint") != self.fingerprint:
            raise CorruptCheckpointError(f"{path}: it is of another training run")
        return content

    def _write(self, path: Path, **content: Any) -> None:
        write_checkpoint_file(path, {"fingerprint": self.fingerprint, **content})

    def _best_file(self, epoch: int | None) -> Path:
        return self.folder / f"best-{epoch}.safetensors"

    def _read_notes(self) -> dict[str, str]:
        try:
            content = json.loads((self.folder / NOTES_FILE).read_bytes())
        except (OSError, ValueError):
            return {}
        return {str(name): str(value) for name, value in content.items()} if type(content) is dict else {}


@contextmanager
def open_checkpoint(
    root: Path, fingerprint: TrainingFingerprint | str, minutes: float
) -> Iterator[Checkpoint | None]:
    """Open the checkpoint of a training run, and delete it when the block completes.

    After an error, the last saved state is retained so that the run can resume. A checkpoint of the same
    training with other numerics (processor, threads, versions) is not used; a warning names the differences.
    Yields None while another process trains the same run.

    Args:
        root: contains a folder per training run.
        fingerprint: of the run.
        minutes: least time between two saved states within an epoch.
    """
    folder = root / str(fingerprint)
    _delete_stale(set(root.glob("*")) - {folder})
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")  # the operating system releases it when the process ends
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.warning("another process trains the same configuration: this one trains without checkpoints")
        yield None
        return
    completed = False
    checkpoint = Checkpoint(folder, str(fingerprint), minutes)
    if isinstance(fingerprint, TrainingFingerprint):
        _log_incompatible_checkpoint(checkpoint, fingerprint)
        write_json(folder / FINGERPRINT_FILE, asdict(fingerprint))
    try:
        yield checkpoint
        completed = True
    except TrainingDivergedError as error:
        if not checkpoint.has_state:
            raise
        raise TrainingDivergedError(
            f"{error}. The last checkpoint is retained in {folder}: without any change, "
            "training resumes there and diverges again"
        ) from None
    finally:
        if completed or not checkpoint.has_state:
            checkpoint.delete()
        lock.release()
        with suppress(OSError):  # other runs have their folders there
            root.rmdir()


def _log_incompatible_checkpoint(checkpoint: Checkpoint, fingerprint: TrainingFingerprint) -> None:
    """If only another numerical environment has a checkpoint of this training, log how that one differs."""
    if checkpoint.has_state:
        return
    others: list[tuple[float, dict[str, str]]] = []
    for path in checkpoint.folder.parent.glob(f"*/{FINGERPRINT_FILE}"):
        try:
            content = json.loads(path.read_bytes())
            inputs, numerics = content["inputs"], dict(content["numerics"])
        except (OSError, ValueError, KeyError, TypeError):
            continue  # deleted in the meantime, or corrupt
        states = [state.stat().st_mtime for state in path.parent.rglob(STATE_FILE)]
        if inputs == fingerprint.inputs and states:
            others.append((max(states), numerics))
    if others:
        written, numerics = max(others, key=lambda other: other[0])
        differences = "; ".join(fingerprint.describe_differences(numerics))
        logger.warning(
            f"the checkpoint of {_format_time(written)} is incompatible, "
            f"training starts from the beginning: {differences}"
        )


def _delete_stale(folders: Iterable[Path]) -> None:
    """Delete old folders: after a change of parameters or code, a run has another folder."""
    oldest = time.time() - RETENTION_DAYS * 24 * 3600
    for folder in folders:
        if folder.stat().st_mtime < oldest:
            shutil.rmtree(folder, ignore_errors=True)


def _format_time(timestamp: float) -> str:
    """Return the time as 14:03, with the date if it is not today."""
    written = datetime.fromtimestamp(timestamp)
    return f"{written:%H:%M}" if written.date() == datetime.now().date() else f"{written:%Y-%m-%d %H:%M}"


def _extract_tensors(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Return `value` with each tensor replaced by its name, and add the tensors to `tensors`."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach().cpu().contiguous()
        return {TENSOR: name}
    if isinstance(value, Mapping):
        return {key: _extract_tensors(item, f"{name}/{key}", tensors) for key, item in value.items()}
    return value


def _insert_tensor(value: dict[str, Any], tensors: Mapping[str, Tensor]) -> Any:
    """Return the tensor that a JSON object replaces; any other object as it is."""
    return tensors[value[TENSOR]] if value.keys() == {TENSOR} else value


def _compute_checksum(content: str, tensors: Mapping[str, Tensor]) -> str:
    checksum = zlib.crc32(content.encode())
    for name, tensor in sorted(tensors.items()):
        checksum = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), checksum)
        checksum = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, checksum)
    return f"{checksum:08x}"


def _fsync(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Checkpoints: a training run that is killed at any moment can resume and ends with the same weights."""

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

TENSOR_KEY = "tensor"
"""In the JSON part of a checkpoint file, the placeholder `{"tensor": name}` stands for a tensor."""

STATE_FILE = "state.safetensors"
NOTES_FILE = "notes.json"
FINGERPRINT_FILE = "fingerprint.json"
"""Parts of the run's fingerprint, from which a run with other numerics finds out why it cannot resume."""

RETENTION_DAYS = 14
"""Age at which the checkpoints of other runs are deleted: each takes a few hundred megabytes."""


class CorruptCheckpointError(Exception):
    """A checkpoint file is corrupt or truncated, or belongs to another training run."""


def write_checkpoint_file(path: Path, state: Mapping[str, Any]) -> None:
    """Write a state atomically: after a kill or a power failure, the file is either the old or the new one.

    The state is a nested dictionary with string keys, whose values are tensors and JSON values.
    """
    content, tensors = split_state(state)
    with atomic_write(path) as temporary:
        save_file(tensors, temporary, {"content": content, "checksum": _compute_checksum(content, tensors)})
        _fsync(temporary)
    _fsync(path.parent)


def read_checkpoint_file(path: Path) -> dict[str, Any]:
    """Read a state that `write_checkpoint_file` has written; all floats are restored exactly.

    Raises:
        FileNotFoundError: the file does not exist.
        CorruptCheckpointError: the file is corrupt or truncated.
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
        return join_state(header["content"], tensors)
    except (SafetensorError, KeyError, ValueError) as error:
        raise CorruptCheckpointError(f"{path}: {error}") from None


def split_state(state: Mapping[str, Any]) -> tuple[str, dict[str, Tensor]]:
    """Split a nested dictionary of tensors and JSON values into JSON with placeholders and named tensors."""
    tensors: dict[str, Tensor] = {}
    return json.dumps(_extract_tensors(state, "", tensors)), tensors


def join_state(content: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Invert `split_state`."""
    return dict(json.loads(content, object_hook=lambda value: _insert_tensor(value, tensors)))


class Checkpoint:
    """The last saved state of one training run, in a folder.

    The best weights, which change at most once per epoch, are in a separate file; the state contains the
    number of their epoch. Notes are named strings that the caller needs when the run resumes.
    """

    def __init__(self, folder: Path, fingerprint: str, minutes: float) -> None:
        """Read the folder. A corrupt or incompatible checkpoint is ignored with a warning.

        Args:
            folder: folder with the files of this checkpoint.
            fingerprint: fingerprint of the run, see `compute_fingerprint`.
            minutes: minimum number of minutes between two saved states within an epoch.
        """
        self.folder = folder
        self.fingerprint = fingerprint
        self._interval_seconds = 60 * minutes
        self.notes: dict[str, str] = self._read_notes()
        self._best_epoch: int | None = None
        self._saved = self._read_state()
        self._last_saved_at = time.monotonic()

    @property
    def epochs(self) -> list[EpochMetrics]:
        """Completed epochs of the saved state; empty if there is none or `restore` has been called."""
        return EPOCHS.validate_python(self._saved["state"]["epochs"]) if self._saved else []

    @property
    def has_state(self) -> bool:
        """True if this checkpoint or a nested one has a saved state."""
        return any(self.folder.rglob(STATE_FILE))

    def write_note(self, name: str, value: str) -> None:
        """Write a note to disk immediately; no state needs to have been saved."""
        self.notes[name] = value
        write_json(self.folder / NOTES_FILE, self.notes)

    def open_nested(self, name: str) -> "Checkpoint":
        """Open the checkpoint of one of several trainings that this run consists of, in a subfolder."""
        return Checkpoint(self.folder / name, f"{self.fingerprint}/{name}", self._interval_seconds / 60)

    def restore(self, state: TrainingState) -> None:
        """Load the saved state, if there is one, into `state`, and log where training resumes."""
        if self._saved is None:
            return
        state.load_state_dict(self._saved["state"], self._saved["best_weights"])
        self._saved = None  # large, and no longer needed
        saved_at = _format_time((self.folder / STATE_FILE).stat().st_mtime)
        logger.info(f"resuming at {state.describe_position()} (checkpoint of {saved_at})")

    def save_if_due(self, state: TrainingState) -> None:
        """Save the state if the minimum time since the last save has passed."""
        if time.monotonic() - self._last_saved_at >= self._interval_seconds:
            self.save(state)

    def save(self, state: TrainingState) -> None:
        """Save the state, replacing the last one. A failure is only logged, since training can continue."""
        best = state.best.epoch if state.epochs else None
        try:
            if best is not None and best != self._best_epoch:
                self._write_file(self._best_weights_path(best), weights=state.best_weights)
            self._write_file(self.folder / STATE_FILE, best=best, state=state.state_dict())
            if self._best_epoch not in (None, best):
                self._best_weights_path(self._best_epoch).unlink(missing_ok=True)
            self._best_epoch = best
        except (OSError, SafetensorError) as error:
            logger.warning(f"cannot write a checkpoint, training continues without it: {error}")
        self._last_saved_at = time.monotonic()

    def delete(self) -> None:
        """Delete the folder; call this when the run has completed."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _read_state(self) -> dict[str, Any] | None:
        try:
            content = self._read_verified(self.folder / STATE_FILE)
            best = content["best"]
            weights = {} if best is None else self._read_verified(self._best_weights_path(best))["weights"]
        except (FileNotFoundError, CorruptCheckpointError) as error:
            if (self.folder / STATE_FILE).exists():
                logger.warning(f"cannot use the checkpoint, training starts from the beginning: {error}")
            return None
        self._best_epoch = best
        return {"state": content["state"], "best_weights": weights}

    def _read_verified(self, path: Path) -> dict[str, Any]:
        content = read_checkpoint_file(path)
        if content.get("fingerprint") != self.fingerprint:
            raise CorruptCheckpointError(f"{path}: it is of another training run")
        return content

    def _write_file(self, path: Path, **content: Any) -> None:
        write_checkpoint_file(path, {"fingerprint": self.fingerprint, **content})

    def _best_weights_path(self, epoch: int | None) -> Path:
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
    """Open the checkpoint of a training run, and delete it if the block completes without an error.

    After an error, the last saved state is retained so that the run can resume. A checkpoint of the same
    training with other numerics (processor, versions) is not used; a warning names the differences.
    Yields None if another process is training the same run.

    Args:
        root: folder that contains one folder per training run.
        fingerprint: fingerprint of the run.
        minutes: minimum number of minutes between two saved states within an epoch.
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
    """If there is a checkpoint of this training, but with other numerics, log how these differ."""
    if checkpoint.has_state:
        return
    incompatible: list[tuple[float, dict[str, str]]] = []
    for path in checkpoint.folder.parent.glob(f"*/{FINGERPRINT_FILE}"):
        try:
            content = json.loads(path.read_bytes())
            inputs, numerics = content["inputs"], dict(content["numerics"])
        except (OSError, ValueError, KeyError, TypeError):
            continue  # deleted in the meantime, or corrupt
        saved_times = [state.stat().st_mtime for state in path.parent.rglob(STATE_FILE)]
        if inputs == fingerprint.inputs and saved_times:
            incompatible.append((max(saved_times), numerics))
    if incompatible:
        newest, numerics = max(incompatible, key=lambda checkpoint: checkpoint[0])
        differences = "; ".join(fingerprint.describe_differences(numerics))
        logger.warning(
            f"the checkpoint of {_format_time(newest)} is incompatible, "
            f"training starts from the beginning: {differences}"
        )


def _delete_stale(folders: Iterable[Path]) -> None:
    """Delete folders unchanged for RETENTION_DAYS, such as those of earlier parameters or code."""
    cutoff = time.time() - RETENTION_DAYS * 24 * 3600
    for folder in folders:
        if folder.stat().st_mtime < cutoff:
            shutil.rmtree(folder, ignore_errors=True)


def _format_time(timestamp: float) -> str:
    """Return the time as 14:03, with the date if it is not today."""
    written = datetime.fromtimestamp(timestamp)
    return f"{written:%H:%M}" if written.date() == datetime.now().date() else f"{written:%Y-%m-%d %H:%M}"


def _extract_tensors(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Return `value` with a placeholder in place of each tensor, and add the tensors to `tensors`."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach().cpu().contiguous()
        return {TENSOR_KEY: name}
    if isinstance(value, Mapping):
        return {key: _extract_tensors(item, f"{name}/{key}", tensors) for key, item in value.items()}
    return value


def _insert_tensor(value: dict[str, Any], tensors: Mapping[str, Tensor]) -> Any:
    """Return the tensor that a placeholder stands for; return any other JSON object unchanged."""
    return tensors[value[TENSOR_KEY]] if value.keys() == {TENSOR_KEY} else value


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

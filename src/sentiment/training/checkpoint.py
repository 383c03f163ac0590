"""Checkpoints: a training run that is killed at any moment can resume and ends with the same weights."""

import json
import logging
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from sentiment.errors import TrainingDivergedError
from sentiment.files import write_json
from sentiment.training.checkpoint_file import (
    CorruptCheckpointError,
    read_checkpoint_file,
    write_checkpoint_file,
)
from sentiment.training.epoch_metrics import EpochMetrics
from sentiment.training.fingerprint import TrainingFingerprint
from sentiment.training.state import EPOCHS, TrainingState

logger = logging.getLogger(__name__)

STATE_FILE = "state.safetensors"
NOTES_FILE = "notes.json"
FINGERPRINT_FILE = "fingerprint.json"
"""Parts of the run's fingerprint, from which a run with other numerics finds out why it cannot resume."""

RETENTION_DAYS = 14
"""Age at which the checkpoints of other runs are deleted: each takes a few hundred megabytes."""


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

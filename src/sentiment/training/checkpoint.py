"""A training run that was killed goes on where its last checkpoint left it."""

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
"""In the JSON, `{"tensor": name}` stands where the tensor of that name was."""


class CorruptCheckpointError(Exception):
    """The file is not what was written."""


def write_checkpoint_file(path: Path, state: Mapping[str, Any]) -> None:
    """Write a state; a kill or a power cut at any moment leaves the old file or the new one, whole.

    state: nested dictionaries with string keys, of tensors and of what JSON can say.
    """
    tensors: dict[str, Tensor] = {}
    rest = json.dumps(_separated(state, "", tensors))
    with atomic_write(path) as temporary:
        save_file(tensors, temporary, {"rest": rest, "checksum": _checksum(rest, tensors)})
        _flush(temporary)
    _flush(path.parent)


def read_checkpoint_file(path: Path) -> dict[str, Any]:
    """Return the state, equal to the one written: floats to the last bit.

    Raises FileNotFoundError; CorruptCheckpointError where a byte is missing or differs.
    """
    if not path.exists():
        raise FileNotFoundError(path)
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            # Copies, aligned as torch aligns its own: the file need not stay mapped.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        if header["checksum"] != _checksum(header["rest"], tensors):
            raise CorruptCheckpointError(f"{path}: its checksum is another")
        return dict(_joined(json.loads(header["rest"]), tensors))
    except (SafetensorError, KeyError, ValueError) as error:
        raise CorruptCheckpointError(f"{path}: {error}") from None


def _separated(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Return `value` with tensors replaced by their names, and put the tensors into `tensors`."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach().cpu().contiguous()
        return {TENSOR: name}
    if isinstance(value, Mapping):
        return {key: _separated(item, f"{name}/{key}", tensors) for key, item in value.items()}
    return value


def _joined(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    if value.keys() == {TENSOR}:
        return tensors[value[TENSOR]]
    return {key: _joined(item, tensors) for key, item in value.items()}


def _checksum(rest: str, tensors: Mapping[str, Tensor]) -> str:
    checksum = zlib.crc32(rest.encode())
    for name, tensor in sorted(tensors.items()):
        checksum = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), checksum)
        checksum = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, checksum)
    return f"{checksum:08x}"


def _flush(path: Path) -> None:
    """Wait until a file, or a folder's list of files, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


STATE_FILE = "state.safetensors"
NOTES = "notes.json"
KEY = "key.json"
"""What the run's key was made of, for a run that differs from it in arithmetic alone."""

KEPT_DAYS = 14
"""After that nobody comes back to a run, and its checkpoint takes a few hundred megabytes."""


class Checkpoint:
    """The last state of one training run, in a folder.

    The best weights, which stay as they are for whole epochs, lie beside the state and are written when they
    change; the state says of which epoch they are.
    """

    def __init__(self, folder: Path, fingerprint: str, minutes: float) -> None:
        """Read what is there; what is torn or belongs to another run is told in one line and ignored.

        key: of the run, see `compute_fingerprint`. minutes: between two states within an epoch.
        """
        self.folder = folder
        self.fingerprint = fingerprint
        self.seconds = 60 * minutes
        self.notes: dict[str, str] = self._read_notes()
        self._best: int | None = None
        self._found = self._read()
        self._last = time.monotonic()

    @property
    def epochs(self) -> list[EpochMetrics]:
        """Epochs that are over in the state found; none where there is none, or `restore` has taken it."""
        return EPOCHS.validate_python(self._found["state"]["epochs"]) if self._found else []

    def note(self, name: str, value: str) -> None:
        """Keep what the caller wants to know when the run goes on. It stands before the first state does."""
        self.notes[name] = value
        write_json(self.folder / NOTES, self.notes)

    def part(self, name: str) -> "Checkpoint":
        """Return the checkpoint of a training within this run; its folder goes with the run's."""
        return Checkpoint(self.folder / name, f"{self.fingerprint}/{name}", self.seconds / 60)

    def restore(self, state: TrainingState) -> str | None:
        """Make `state` the one found, and return when that was written; None where there is none.

        state: of a run that has just started, with the same parameters.
        """
        if self._found is None:
            return None
        state.load(self._found["state"], self._found["best_weights"])
        self._found = None  # what it holds is large, and lives on in `state`
        return _clock((self.folder / STATE_FILE).stat().st_mtime)

    def save_if_due(self, state: TrainingState) -> None:
        """Write the state if the last one is old enough."""
        if time.monotonic() - self._last >= self.seconds:
            self.save(state)

    def save(self, state: TrainingState) -> None:
        """Write the state in place of the last one. Where that fails, say so: training itself can go on."""
        best = state.best.epoch if state.epochs else None
        try:
            if best is not None and best != self._best:
                write_checkpoint_file(
                    self._best_file(best), {"key": self.fingerprint, "weights": state.best_weights}
                )
            write_checkpoint_file(
                self.folder / STATE_FILE, {"key": self.fingerprint, "best": best, "state": state.dump()}
            )
            if self._best not in (None, best):
                self._best_file(self._best).unlink(missing_ok=True)
            self._best = best
        except (OSError, SafetensorError) as error:
            logger.info(f"no checkpoint was written, training goes on: {error}")
        self._last = time.monotonic()

    @property
    def exists(self) -> bool:
        """Whether there is a state to go on from, of the run or of a part of it."""
        return any(self.folder.rglob(STATE_FILE))

    def remove(self) -> None:
        """Remove the folder: the run is over."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _read(self) -> dict[str, Any] | None:
        try:
            found = self._whole(STATE_FILE)
            best = found["best"]
            weights = {} if best is None else self._whole(self._best_file(best).name)["weights"]
        except (FileNotFoundError, CorruptCheckpointError) as error:
            if (self.folder / STATE_FILE).exists():
                logger.info(f"the checkpoint cannot be used, training starts anew: {error}")
            return None
        self._best = best
        return {"state": found["state"], "best_weights": weights}

    def _whole(self, name: str) -> dict[str, Any]:
        content = read_checkpoint_file(self.folder / name)
        if content.get("key") != self.fingerprint:
            raise CorruptCheckpointError(f"{self.folder / name}: it belongs to another training run")
        return content

    def _best_file(self, epoch: int | None) -> Path:
        return self.folder / f"best-{epoch}.safetensors"

    def _read_notes(self) -> dict[str, str]:
        try:
            content = json.loads((self.folder / NOTES).read_bytes())
        except (OSError, ValueError):
            return {}
        return {str(name): str(value) for name, value in content.items()} if type(content) is dict else {}


@contextmanager
def open_checkpoint(
    root: Path, key: TrainingFingerprint | str, minutes: float
) -> Iterator[Checkpoint | None]:
    """Yield the checkpoint of the run that `key` names, and remove it when the block ends well.

    root: folder with a folder per run. minutes: between two checkpoints within an epoch. Yields None while
    another process trains the same run: two would write over each other. What an error leaves behind is what
    the run can go on from, or nothing. A checkpoint of the same training on another processor, with other
    threads or versions is not resumed: one line says so, and in what they differ.
    """
    folder = root / str(key)
    _forget_old(set(root.glob("*")) - {folder})
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")  # the system lets go of it when the process dies
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.info("another process trains the same configuration: this one goes without checkpoints")
        yield None
        return
    ended = False
    checkpoint = Checkpoint(folder, str(key), minutes)
    if isinstance(key, TrainingFingerprint):
        _say_what_is_not_resumed(checkpoint, key)
        write_json(folder / KEY, asdict(key))
    try:
        yield checkpoint
        ended = True
    except TrainingDivergedError as error:
        if not checkpoint.exists:
            raise
        raise TrainingDivergedError(
            f"{error}. The last checkpoint stays in {folder}: started again with nothing changed, "
            "training goes on from there and ends here again"
        ) from None
    finally:
        if ended or not checkpoint.exists:
            checkpoint.remove()
        lock.release()
        with suppress(OSError):  # other runs have theirs there
            root.rmdir()


def _say_what_is_not_resumed(checkpoint: Checkpoint, key: TrainingFingerprint) -> None:
    """Name the newest checkpoint that has the same recipe and another arithmetic, where this run has none."""
    if checkpoint.exists:
        return
    others: list[tuple[float, dict[str, str]]] = []
    for path in checkpoint.folder.parent.glob(f"*/{KEY}"):
        try:
            found = json.loads(path.read_bytes())
            recipe, arithmetic = found["recipe"], dict(found["arithmetic"])
        except (OSError, ValueError, KeyError, TypeError):
            continue  # removed at this moment, or corrupt
        states = [state.stat().st_mtime for state in path.parent.rglob(STATE_FILE)]
        if recipe == key.recipe and states:
            others.append((max(states), arithmetic))
    if others:
        written, arithmetic = max(others, key=lambda other: other[0])
        differences = "; ".join(key.differences(arithmetic))
        logger.info(
            f"the checkpoint of {_clock(written)} is not resumed, training starts anew: {differences}"
        )


def _clock(timestamp: float) -> str:
    """Return a time of today as 14:03, of another day with its date."""
    written = datetime.fromtimestamp(timestamp)
    same_day = written.date() == datetime.now().date()
    return f"{written:%H:%M}" if same_day else f"{written:%Y-%m-%d %H:%M}"


def _forget_old(folders: Iterable[Path]) -> None:
    """Remove what nobody came back to: after a change of parameters or code the folder is another."""
    oldest = time.time() - KEPT_DAYS * 24 * 3600
    for folder in folders:
        if folder.stat().st_mtime < oldest:
            shutil.rmtree(folder, ignore_errors=True)

"""Checkpoints that all nodes of a cluster can read, so that a trial resumes on another node."""

import logging
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec

from sentiment.training.checkpoint import STATE_FILE, Checkpoint
from sentiment.training.state import TrainingState

logger = logging.getLogger(__name__)

BEST_WEIGHTS = "best-*.safetensors"


@dataclass(frozen=True)
class CheckpointStore:
    """A folder of a file system of fsspec.

    Attributes:
        filesystem: file system.
        folder: path in the file system.
    """

    filesystem: Any
    folder: str

    @classmethod
    def open(cls, address: str) -> "CheckpointStore":
        """Open a folder, which need not exist."""
        filesystem, folder = fsspec.core.url_to_fs(address)
        return cls(filesystem, folder.rstrip("/"))

    def open_nested(self, name: str) -> "CheckpointStore":
        """Open a subfolder."""
        return CheckpointStore(self.filesystem, f"{self.folder}/{name}")

    def download(self, folder: Path) -> None:
        """Copy all files to a local folder; none if the store has none."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in self._list_names():
            self.filesystem.get_file(f"{self.folder}/{name}", str(folder / name))

    def upload(self, folder: Path) -> None:
        """Copy a local checkpoint to the store; the state last, since it names the best weights.

        Each file appears under its name once it is complete.
        """
        self.filesystem.makedirs(self.folder, exist_ok=True)
        stored, best = self._list_names(), {path.name for path in folder.glob(BEST_WEIGHTS)}
        for name in (*sorted(best - stored), STATE_FILE):
            temporary = f"{self.folder}/{name}.{uuid.uuid4().hex}.part"
            self.filesystem.put_file(str(folder / name), temporary)
            self.filesystem.mv(temporary, f"{self.folder}/{name}")
        for name in stored - best - {STATE_FILE}:
            with suppress(FileNotFoundError):
                self.filesystem.rm_file(f"{self.folder}/{name}")

    def delete(self) -> None:
        """Delete the folder and all its subfolders, if it exists."""
        with suppress(FileNotFoundError):
            self.filesystem.rm(self.folder, recursive=True)

    def _list_names(self) -> set[str]:
        try:
            files = self.filesystem.ls(self.folder, detail=True, refresh=True)
        except FileNotFoundError:
            return set()
        names = {str(file["name"]).rpartition("/")[2] for file in files if file["type"] == "file"}
        return {name for name in names if name.endswith(".safetensors")}


class SharedCheckpoint(Checkpoint):
    """A checkpoint in a local folder that is read from a store, and copied to it after each save."""

    def __init__(self, folder: Path, fingerprint: str, minutes: float, store: CheckpointStore) -> None:
        """Copy the checkpoint from the store and read it; a store that cannot be read counts as empty."""
        self._store, self._minutes = store, minutes
        try:
            store.download(folder)
        except Exception as error:  # each file system of fsspec has exceptions of its own
            logger.warning(f"cannot read the checkpoint store: {type(error).__name__}")
        super().__init__(folder, fingerprint, minutes)

    def open_nested(self, name: str) -> "SharedCheckpoint":
        """Open the checkpoint of one of several trainings, in a subfolder."""
        return SharedCheckpoint(
            self.folder / name, f"{self.fingerprint}/{name}", self._minutes, self._store.open_nested(name)
        )

    def save(self, state: TrainingState) -> None:
        """Save the state and copy it to the store. A failure is only logged, since training can continue."""
        super().save(state)
        try:
            self._store.upload(self.folder)
        except Exception as error:  # as above
            logger.warning(f"cannot write to the checkpoint store: {type(error).__name__}")

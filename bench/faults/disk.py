"""A disk that becomes full: a small tmpfs, or a limit on file sizes if no tmpfs can be mounted."""

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

SIZE_MB = 96
"""A small cut with its cache, store and studies takes about a third."""

BALLAST = "ballast"
SMALLEST_FILE = 1
"""Largest file size in bytes without a tmpfs: every write beyond it fails."""


@dataclass(frozen=True)
class Disk:
    """A folder on its own small file system, or on the machine's file system."""

    folder: Path
    is_mounted: bool

    def fill(self, process: subprocess.Popen[bytes]) -> None:
        """Make every further write of the process group fail."""
        if self.is_mounted:
            self._fill()
            return
        with suppress(psutil.NoSuchProcess):
            leader = psutil.Process(process.pid)
            for member in (leader, *leader.children(recursive=True)):
                with suppress(ProcessLookupError):
                    resource.prlimit(member.pid, resource.RLIMIT_FSIZE, (SMALLEST_FILE, SMALLEST_FILE))

    def make_room(self) -> None:
        """Undo `fill`."""
        (self.folder / BALLAST).unlink(missing_ok=True)

    def _fill(self) -> None:
        with (self.folder / BALLAST).open("wb") as file:
            size = 0
            while free := _free(self.folder):
                step = max(free // 2, os.sysconf("SC_PAGE_SIZE"))  # other processes write too
                with suppress(OSError):
                    os.posix_fallocate(file.fileno(), size, step)
                    size += step


@contextmanager
def small_disk(folder: Path, *, mount: bool = True) -> Iterator[Disk]:
    """Yield a new folder that can be filled, on a tmpfs if `mount` is true and mounting is permitted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "tmpfs", str(folder)]
    is_mounted = mount and subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield Disk(folder, is_mounted)
    finally:
        if is_mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _free(folder: Path) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize

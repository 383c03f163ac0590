"""A disk that is full at a moment: a small tmpfs, or a limit on file sizes where none can be mounted."""

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
"""Bytes that a file may have where there is no tmpfs: every write past them fails."""


@dataclass(frozen=True)
class Disk:
    """A folder on a small file system of its own, or on the large one of the machine."""

    folder: Path
    is_mounted: bool

    def fill(self, process: subprocess.Popen[bytes]) -> None:
        """Let no write of the process's group succeed from now on."""
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
                step = max(free // 2, os.sysconf("SC_PAGE_SIZE"))  # others write too, and may be faster
                with suppress(OSError):
                    os.posix_fallocate(file.fileno(), size, step)
                    size += step


@contextmanager
def small_disk(folder: Path, *, mount: bool = True) -> Iterator[Disk]:
    """Yield a new folder that can be filled, on a tmpfs if `mount` and one may be mounted."""
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

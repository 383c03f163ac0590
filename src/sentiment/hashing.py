"""MD5, DVC's hash of a file, by which files, runs and models are matched."""

import hashlib
from pathlib import Path


def file_md5(path: Path) -> str:
    """Return the MD5 of a file as `dvc.lock` and `.dvc` files have it; read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def content_md5(content: bytes) -> str:
    """Return the MD5 of content that is in memory."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()

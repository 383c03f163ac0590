"""The MD5 of files and folders as `dvc.lock` has them."""

from collections.abc import Iterable
from pathlib import Path

from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.meta import Meta
from dvc_data.hashfile.tree import Tree

from sentiment.hashing import file_md5


def dvc_hashes(paths: Iterable[Path]) -> dict[str, str]:
    """Return by path what DVC calls the MD5 of a file or, ending in `.dir`, of a folder.

    Each file is read once, also where it lies in several of the folders. Missing paths are left out.
    """
    of_files: dict[Path, str] = {}
    found = {}
    for path in paths:
        if path.is_dir():
            tree = Tree()  # type: ignore[no-untyped-call]
            for file in sorted(inner for inner in path.rglob("*") if inner.is_file()):
                md5 = of_files[file] = of_files.get(file) or file_md5(file)
                tree.add(file.relative_to(path).parts, Meta(), HashInfo("md5", md5))
            tree.digest()
            found[path.as_posix()] = str(tree.hash_info.value)
        elif path.is_file():
            of_files[path] = of_files.get(path) or file_md5(path)
            found[path.as_posix()] = of_files[path]
    return found

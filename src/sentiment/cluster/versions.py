"""Versions of code and packages, which are equal on all nodes of a Ray cluster that tasks run on."""

import hashlib
import importlib.metadata
import platform
import socket
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from sentiment.errors import UserError

PACKAGE = Path(__file__).parents[1]

COMPARED_PACKAGES = ("ray", "torch", "numpy", "safetensors")
"""Packages whose versions are equal on all nodes: they determine results, or how nodes exchange them."""

SAME_VERSIONS = (
    "install the same commit of this repository and the same lock files on every node, or take the node out "
    "of the cluster"
)
"""What to do about nodes whose versions differ, in messages."""


@cache
def collect_versions() -> dict[str, str]:
    """Collect what has to be equal on all nodes, by name: Python, packages, and the code of this package."""
    packages = {name: _find_version(name) for name in COMPARED_PACKAGES}
    return {"Python": platform.python_version(), **packages, "the code of sentiment": _compute_digest()}


def require_versions(expected: Mapping[str, str]) -> None:
    """Check in a task that its node has the versions of the driver: nodes may join while the driver runs.

    Raises:
        UserError: a version differs.
    """
    if differences := describe_differences(expected, collect_versions()):
        raise UserError(f"Ray: node {socket.gethostname()}: {differences}; {SAME_VERSIONS}")


def describe_differences(expected: Mapping[str, str], found: Mapping[str, str]) -> str:
    """Describe how the versions on a node differ from the expected ones; empty if they do not."""
    return ", ".join(
        f"{name} differs from that of the driver"
        if name == "the code of sentiment"
        else f"{name} is {found.get(name, 'missing')}, {expected[name]} on the driver"
        for name in expected
        if found.get(name) != expected[name]
    )


def _find_version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _compute_digest() -> str:
    """Compute a digest of all source files of the package, which tasks import."""
    digest = hashlib.md5(usedforsecurity=False)
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(path.relative_to(PACKAGE).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()

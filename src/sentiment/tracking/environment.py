"""Which packages, which Python and which processor a run used."""

import importlib.metadata
import platform
import re
from pathlib import Path

import torch

from sentiment.training.processor import instruction_sets

LOCK = Path("requirements.lock")
PINNED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;]+)", re.MULTILINE)


def machine_tags() -> dict[str, str]:
    """Return tags of what computes: versions, processor, instruction sets, threads."""
    return {
        "version.python": platform.python_version(),
        "version.torch": torch.__version__,
        "version.dvc": importlib.metadata.version("dvc"),
        "cpu.threads": str(torch.get_num_threads()),
        **{f"cpu.{name}": value for name, value in instruction_sets().items()},
    }


def installed_packages() -> str:
    """Return the installed versions of what `requirements.lock` pins, as a requirements file.

    Where a version is another than the pinned one, a comment says so. Without a lock: all that is installed.
    """
    try:
        pinned = dict(PINNED.findall(LOCK.read_text(encoding="utf-8")))
    except OSError:
        pinned = {}
    names = pinned or {dist.name: "" for dist in importlib.metadata.distributions()}
    lines = []
    for name in sorted(names, key=str.lower):
        try:
            installed = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            lines.append(f"# {name}=={pinned[name]}: not installed")
            continue
        differs = pinned and installed.partition("+")[0] != pinned[name].partition("+")[0]
        lines.append(f"{name}=={installed}" + (f"  # locked: {pinned[name]}" if differs else ""))
    return "\n".join(lines) + "\n"

"""Installed packages against `environment.yaml`, whose locked versions the stages declare as parameters.

`python -m sentiment.environment`, a part of `make lock`, writes that file.
"""

import importlib.metadata
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from sentiment import paths
from sentiment.errors import UserError
from sentiment.files import write_text

REQUIREMENTS = Path("requirements.lock")
PINNED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;]+)", re.MULTILINE)

HEADER = f"""\
# Written by `make lock` from {REQUIREMENTS}: versions of the packages that can change the bytes of an output.
# Each stage in {paths.PIPELINE} declares those that its code reaches. The packages that are left out are
# listed in tests/pipeline/test_environment.py, with the reason.
"""


def require_locked_packages(stage: str) -> None:
    """Raise UserError if an installed package differs from the version that a stage depends on.

    Versions are compared without their local label: 2.13.0+cpu is a build of 2.13.0. Nothing is imported.

    Args:
        stage: name of the stage in `dvc.yaml`.

    Raises:
        UserError: a package that the stage declares is not installed in the version that `environment.yaml`
            records, or the file lacks it. The message lists all such packages.
    """
    differences = find_differing_packages(list_declared_packages(read_stages().get(stage, {})))
    if differences:
        raise UserError(
            "\n".join(
                [
                    f"installed packages differ from {paths.ENVIRONMENT}, whose versions {stage} depends on:",
                    *(f"  {line}" for line in differences),
                    "`make setup` installs the locked versions; to use others, change pyproject.toml and "
                    "run `make lock`, then `make setup`",
                ]
            )
        )


def find_differing_packages(packages: list[str], locked: Mapping[str, str] | None = None) -> list[str]:
    """Return a line for each package whose installed version is not the locked one.

    Args:
        packages: names of the packages.
        locked: locked version of each package; by default those in `environment.yaml`.
    """
    locked = read_environment() if locked is None else locked
    lines = []
    for package in packages:
        installed = _find_installed_version(package)
        if package not in locked:
            lines.append(f"{package}: {paths.ENVIRONMENT} has no version of it")
        elif installed is None:
            lines.append(f"{package}: {locked[package]} is locked, none is installed")
        elif get_public_version(installed) != get_public_version(locked[package]):
            lines.append(f"{package}: {locked[package]} is locked, {installed} is installed")
    return lines


def read_environment() -> dict[str, str]:
    """Return the locked version of each package in `environment.yaml`.

    Raises:
        UserError: the file is missing, or is not a mapping of package names to versions.
    """
    try:
        content = YAML(typ="safe", pure=True).load(paths.ENVIRONMENT.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{paths.ENVIRONMENT}: no such file; restore it with git, or run `make lock`"
        ) from None
    except (UnicodeDecodeError, YAMLError) as error:
        raise UserError(f"{paths.ENVIRONMENT}: not valid YAML: {error}") from None
    if not isinstance(content, Mapping) or not all(isinstance(version, str) for version in content.values()):
        raise UserError(f'{paths.ENVIRONMENT}: expected lines such as `torch: "2.13.0"`; run `make lock`')
    return dict(content)


def read_stages() -> dict[str, dict[str, Any]]:
    """Return the stages of `dvc.yaml` by name.

    Raises:
        UserError: the file is missing, is not valid YAML, or has no stages.
    """
    try:
        content = YAML(typ="safe", pure=True).load(paths.PIPELINE.read_text(encoding="utf-8"))
        return dict(content["stages"])
    except FileNotFoundError:
        raise UserError(f"{paths.PIPELINE}: no such file; run this in the root of the project") from None
    except (UnicodeDecodeError, YAMLError, KeyError, TypeError) as error:
        raise UserError(f"{paths.PIPELINE}: not a valid pipeline: {error}") from None


def list_declared_packages(stage: Mapping[str, Any]) -> list[str]:
    """Return the packages whose versions a stage of `dvc.yaml` declares as parameters, in its order."""
    files = [entry for entry in stage.get("params") or () if isinstance(entry, Mapping)]
    return [name for entry in files for name in entry.get(paths.ENVIRONMENT.name) or ()]


def normalize_name(package: str) -> str:
    """Return the normalized name of a package: lower case, `-` in place of `_` and `.` (PEP 503).

    A normalized name has no dot, which DVC would read as a path within the file.
    """
    return re.sub(r"[-_.]+", "-", package).lower()


def get_public_version(version: str) -> str:
    """Return a version without its local label: 2.13.0 for 2.13.0+cpu."""
    return version.partition("+")[0]


def read_pinned_versions(path: Path = REQUIREMENTS) -> dict[str, str]:
    """Return the pinned versions in a lock file of pip, by normalized name of the package."""
    return {
        normalize_name(name): version for name, version in PINNED.findall(path.read_text(encoding="utf-8"))
    }


def render_environment() -> str:
    """Return the content of `environment.yaml`: the locked versions of all packages that stages declare.

    Raises:
        UserError: the lock lacks a declared package.
    """
    pinned = read_pinned_versions()
    declared = sorted({name for stage in read_stages().values() for name in list_declared_packages(stage)})
    if missing := [name for name in declared if name not in pinned]:
        raise UserError(
            f"{REQUIREMENTS} has no version of {', '.join(missing)}, declared in {paths.PIPELINE}"
        )
    # Without quotes, YAML would read the version 2.10 as the number 2.1.
    return HEADER + "".join(f'{name}: "{get_public_version(pinned[name])}"\n' for name in declared)


def _find_installed_version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    write_text(paths.ENVIRONMENT, render_environment())

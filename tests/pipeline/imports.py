"""The modules and packages that a stage imports, found in the source code without importing any of it."""

import ast
import importlib.metadata
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from sentiment.environment import normalize_name, read_pinned_versions
from tests.project import ROOT

STAGES = ("download", "tokenize", "train", "tune", "evaluate")

INFRASTRUCTURE = (
    "__init__",
    "child_processes",
    "cluster",
    "environment",
    "errors",
    "files",
    "lineage",
    "logs",
    "params",
    "paths",
    "repository",
    "repository_locks",
    "settings",
    "shards",
    "stage_inputs",
    "tracking",
)
"""Modules of `sentiment` that stages use but that do not affect results, so no stage depends on them.

`params` only types what dvc.yaml declares as params; the rest writes files, runs and messages.
"""


def find_modules(start: str) -> set[str]:
    """Return the modules of `sentiment` that a file imports, also through modules that affect results."""
    found: set[str] = set()
    waiting = [ROOT / start]
    while waiting:
        for module in _find_imported_modules(waiting.pop()):
            if module not in found:
                found.add(module)
                if find_dependency(module) is not None:
                    waiting.append(get_file(module))
    return found


def _find_imported_modules(file: Path) -> set[str]:
    modules = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "sentiment":
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            modules |= {name for name in inside if get_file(name).exists()} or {node.module}
    return modules


def get_file(module: str) -> Path:
    """Return the source file of a module of `sentiment`."""
    path = ROOT / "src" / Path(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def find_dependency(module: str) -> str | None:
    """Return the dependency of a stage that uses a module: its package, or the module itself."""
    part = module.split(".")[1]
    if part in INFRASTRUCTURE:
        return None
    package = f"src/sentiment/{part}"
    return package if (ROOT / package).is_dir() else f"{package}.py"


def find_packages(file: Path) -> set[str]:
    """Return the normalized names of the installed packages that a file imports."""
    imported = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.add(node.module)
    top_level = {name.partition(".")[0] for name in imported} - {"sentiment", "stages", "ruamel"}
    names = {name for module in top_level - sys.stdlib_module_names for name in _find_distributions(module)}
    if any(name.startswith("ruamel.yaml") for name in imported):  # a namespace of several packages
        names.add("ruamel.yaml")
    return {normalize_name(name) for name in names}


@cache
def _map_modules() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


def _find_distributions(module: str) -> list[str]:
    """Return the packages that install a module: the one of its name, if it is among several.

    Modules of the extra `ray`, which may not be installed, are packages of their own name.
    """
    if module in read_pinned_versions(ROOT / "requirements-ray.lock"):
        return [module]
    names = _map_modules()[module]
    return [module] if module in names else names


def find_result_packages(stage: str) -> set[str]:
    """Return the packages that the code of a stage imports, without modules that do not affect results."""
    modules = [module for module in find_modules(f"stages/{stage}.py") if find_dependency(module) is not None]
    files = [ROOT / f"stages/{stage}.py", *map(get_file, modules)]
    return set().union(*map(find_packages, files))

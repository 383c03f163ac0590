"""Who may import whom."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project import ROOT

PACKAGE = ROOT / "src" / "sentiment"
LAYERS = {
    "params": {"errors", "paths"},
    "data": {"params", "settings"},
    "tokens": {"params", "data"},
    "model": {"params", "data", "tokens"},
    "training": {"params", "tokens", "model"},
    "intervals": set[str](),
    "evaluation": {"params", "tokens", "model", "training", "intervals"},
    "tracking": {"params", "data", "tokens", "model", "training", "settings"},
    "lineage": {"params", "tokens", "model", "training", "tracking", "settings"},
    "repair": {"dvc_repair"},
    "tuning": {"params", "tokens", "model", "training", "intervals", "tracking", "lineage", "settings"},
}
"""For each layer, what it may import besides itself and the base."""

BASE = {"errors", "files", "text", "logs", "paths", "repository"}
ONLY_IN = {
    "mlflow": {"tracking", "lineage"},
    "optuna": {"tuning"},
    "ray": {"tuning"},
    "dvc": {"repair", "dvc_repair", "data"},
}


def _modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py"))


def _layer(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", _modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_module_imports_only_layers_below(path: Path) -> None:
    layer = _layer(path)
    if layer not in LAYERS:
        return  # the base, settings, and the command line on top
    inside = {name.split(".")[1] for name in _imported(path) if name.startswith("sentiment.")}
    assert inside <= LAYERS[layer] | BASE | {layer}


@pytest.mark.parametrize("library", ONLY_IN)
def test_library_has_one_door(library: str) -> None:
    users = {_layer(path) for path in _modules() if any(n.split(".")[0] == library for n in _imported(path))}
    assert users <= ONLY_IN[library]


@pytest.mark.parametrize("stage", ["download", "tokenize"])
def test_data_stages_load_neither_torch_nor_mlflow(stage: str) -> None:
    heavy = {"torch", "mlflow", "sklearn", "optuna"}
    code = f"import sys, stages.{stage}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_nothing_unpickles() -> None:
    forbidden = {"pickle", "cloudpickle", "joblib", "dill", "torch.load", "torch.save"}
    for path in [*_modules(), *(ROOT / "stages").glob("*.py")]:
        assert not {name for name in _imported(path) if name.split(".")[0] in forbidden}, path
        calls = {
            ast.unparse(node.func)
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call)
        }
        assert not calls & forbidden, path

"""What modules load and call, beyond the import contracts of pyproject.toml, which `make lint` checks."""

import ast
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from sentiment.tracking.logged_model import REQUIREMENTS, SERVING_CODE
from tests.project import ROOT

PACKAGE = ROOT / "src" / "sentiment"


def _imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["download", "tokenize"])
def test_data_stages_load_neither_torch_nor_mlflow(stage: str) -> None:
    heavy = {"torch", "mlflow", "sklearn", "optuna"}
    code = f"import sys, stages.{stage}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_nothing_unpickles() -> None:
    forbidden = {"pickle", "cloudpickle", "joblib", "dill", "torch.load", "torch.save"}
    for path in [*PACKAGE.rglob("*.py"), *(ROOT / "stages").glob("*.py")]:
        assert not {name for name in _imported(path) if name.split(".")[0] in forbidden}, path
        calls = {
            ast.unparse(node.func)
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call)
        }
        assert not calls & forbidden, path


@pytest.mark.slow
def test_served_model_requires_every_package_that_its_code_imports() -> None:
    code = (
        "import sys, sentiment.model.predictor, sentiment.serving_input; "
        "print(*(module.__file__ for name, module in sys.modules.items() if name.startswith('sentiment')))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    paths = {SERVING_CODE, *map(Path, loaded.split())}
    top_level = {
        alias.name.partition(".")[0] if isinstance(node, ast.Import) else str(node.module).partition(".")[0]
        for path in paths
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    distributions = importlib.metadata.packages_distributions()
    # pydantic requires pydantic_core itself.
    missing = {
        name
        for name in top_level - sys.stdlib_module_names - {"sentiment", "pydantic_core"}
        if not {*distributions[name]} & {*REQUIREMENTS}
    }
    assert not missing

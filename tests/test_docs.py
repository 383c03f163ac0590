"""Documentation against the repository: links, paths, parameters, modules and stages that it names."""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

import pytest
from ruamel.yaml import YAML

from sentiment.environment import list_declared_packages
from sentiment.params.loading import FORMER_NAMES
from sentiment.settings import Settings
from tests.project import ROOT

FOLDERS = (".ci", ".github", "bench", "docs", "src", "stages", "tests")
"""Folders whose content is all in git, but for byte code."""

PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "bench/**/*.md", "data/incoming/README.md", "docs/**/*.md")
    for path in ROOT.glob(pattern)
)
ARCHITECTURE = ROOT / "docs" / "architecture.md"
CONFIGURATION = ROOT / "docs" / "configuration.md"
OPERATIONS = ROOT / "docs" / "operations.md"

OUTPUTS = ("data", "metrics", "mlruns", "models", "plots", "reports")
"""Folders whose content the pipeline writes, so that a fresh clone lacks most of it."""

RETRAINING = ("reports/retrain.md", "reports/retrain.json", "reports/decision.jsonl")
"""What `sentiment retrain` writes."""

UNWRITTEN = (".cache", ".checkpoints", ".dvc", "mlruns", "bench/gpu/pack", "bench/gpu/results")
"""Folders whose content depends on what has run on a machine."""

EXAMPLES = ("data/kaggle", "data/mine", "data/incoming/week-47.csv", "data/incoming/tweets")
"""Names that a page gives to files of the reader's own."""

CODE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
PATH = re.compile(r"\.?[A-Za-z0-9_-][\w.-]*(?:/[\w.*-]+)+/?")
FILE_AT_ROOT = re.compile(r"[A-Za-z][\w-]*\.(?:md|toml|yaml|lock)|Makefile|LICENSE|\.env\.example")


def _prose(page: Path) -> str:
    """The text of a page without its code blocks."""
    return CODE.sub("", page.read_text(encoding="utf-8"))


def _anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", _prose(page), re.MULTILINE):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")
        found.add(
            next(name for number in range(99) if (name := f"{slug}-{number}".removesuffix("-0")) not in found)
        )
    return found


@pytest.mark.parametrize("name", PAGES)
def test_links_resolve(name: str) -> None:
    page = ROOT / name
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", _prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        linked = page.parent / file if file else page
        if not linked.exists() or (anchor and anchor not in _anchors(linked)):
            broken.append(target)
    assert not broken


@pytest.mark.parametrize("name", [name for name in PAGES if name != "CHANGELOG.md"])  # it names what is gone
def test_paths_in_backticks_exist(name: str) -> None:
    missing = [path for path in _paths(ROOT / name) if not _is_known(path)]
    assert not missing


def _paths(page: Path) -> Iterator[str]:
    """Yield what a page has in backticks and looks like a path in this repository."""
    tops = {*FOLDERS, *OUTPUTS, *UNWRITTEN}
    for quoted in re.findall(r"`([^`\n]+)`", _prose(page)):
        is_path = PATH.fullmatch(quoted) and quoted.split("/")[0] in tops
        if is_path or FILE_AT_ROOT.fullmatch(quoted):
            yield quoted.rstrip("/")


def _is_known(path: str) -> bool:
    if (
        (ROOT / path).exists()
        or any(ROOT.glob(path))
        or f"{path}/".startswith(tuple(f"{one}/" for one in UNWRITTEN))
    ):
        return True
    if "/" not in path:  # the name alone of a file in some folder
        return any(found for folder in FOLDERS for found in (ROOT / folder).rglob(path))
    if path.startswith(EXAMPLES):
        return True
    outputs = {*(out for stage in _stages().values() for out in _written(stage)), *RETRAINING}
    return any(f"{path}/".startswith(f"{out}/") or fnmatch(out, f"{path}*") for out in outputs)


def _stages() -> Mapping[str, Any]:
    return dict(YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"])


def _written(stage: Mapping[str, Any]) -> list[str]:
    """The outputs of a stage; one with options is a mapping of its path to them."""
    outputs = [*stage["outs"], *stage["metrics"]]
    return [name for entry in outputs for name in ([entry] if isinstance(entry, str) else entry)]


def test_every_picture_is_shown() -> None:
    text = "".join((ROOT / name).read_text(encoding="utf-8") for name in PAGES)
    assert all(f"images/{path.name})" in text for path in (ROOT / "docs" / "images").iterdir())


def test_readme_has_at_most_a_thousand_words() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 1000


def test_readme_names_every_test_tier() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(target in readme for target in ("make test-fast", "make test ", "make test-all"))


def test_every_module_is_described_once() -> None:
    text = ARCHITECTURE.read_text(encoding="utf-8")
    described = re.findall(r"^\| `(src/sentiment/[\w/]+\.py)` \|", text, re.MULTILINE)
    modules = [path.relative_to(ROOT).as_posix() for path in (ROOT / "src" / "sentiment").rglob("*.py")]
    assert sorted(described) == sorted(name for name in modules if not name.endswith("__init__.py"))


@pytest.mark.parametrize("stage", _stages())
def test_files_of_a_stage_are_those_in_dvc_yaml(stage: str) -> None:
    section = ARCHITECTURE.read_text(encoding="utf-8").partition("## Files of each stage")[2]
    row = re.search(rf"^\| {stage} \|(.*)\|(.*)\|$", section, re.MULTILINE)
    assert row is not None
    declared = _stages()[stage]
    described = re.findall(r"`([^`]+)`", row[2])
    assert all(any(f"{out}/".startswith(f"{one}/") for one in described) for out in _written(declared))
    assert all(any(f"{out}/".startswith(f"{one}/") for out in _written(declared)) for one in described)


def test_packages_re_run_the_stages_that_declare_them() -> None:
    section = OPERATIONS.read_text(encoding="utf-8").partition("## Changing a package")[2]
    rows = re.findall(r"^\| (`.+) \| (.+) \|$", section.partition("\n## ")[0], re.MULTILINE)
    stages = {name: set(list_declared_packages(stage)) for name, stage in _stages().items()}
    documented = {
        package: set(stages) if run_again == "all" else set(run_again.split(", ")) - {"none"}
        for packages, run_again in rows
        for package in re.findall(r"`([\w-]+)`", packages)
    }
    declared = {
        package: {name for name, packages in stages.items() if package in packages}
        for package in set().union(*stages.values())
    }
    assert {package: names for package, names in documented.items() if names} == declared


def _leaves(node: Any, name: str) -> Iterator[str]:
    if isinstance(node, dict) and name != "space":
        for key, value in node.items():
            yield from _leaves(value, f"{name}.{key}" if name else key)
    else:
        yield name


@pytest.mark.parametrize("section", ["download", "tokenize", "model", "train", "tune", "evaluate", "retrain"])
def test_every_parameter_is_documented(section: str) -> None:
    text = CONFIGURATION.read_text(encoding="utf-8").partition(f"### {section}\n")[2]
    text = re.split(r"^#{2,3} ", text, maxsplit=1, flags=re.MULTILINE)[0]
    content = YAML(typ="safe").load(ROOT / "params.yaml")[section]
    variants = ("schedule", "clip", "sampler", "pruner")  # keys of a variant are in a table by kind
    missing = []
    for leaf in _leaves(content, ""):
        holder, _, key = leaf.rpartition(".")
        names = {f"`{leaf}`", *((f"`{key}`", f"`{holder}`") if holder in variants else ())}
        if not any(name in text for name in names):
            missing.append(leaf)
    assert not missing


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_documented(name: str) -> None:
    assert f"`{name.upper()}`" in CONFIGURATION.read_text(encoding="utf-8")
    assert name.upper() in (ROOT / ".env.example").read_text(encoding="utf-8")


def test_renamed_keys_are_those_that_loading_knows() -> None:
    section = CONFIGURATION.read_text(encoding="utf-8").partition("## Renamed keys")[2]
    rows = re.findall(r"^\| `([\w.]+)` \| `([\w.]+)` \|$", section, re.MULTILINE)
    documented = {old.rpartition(".")[2]: new.rpartition(".")[2] for old, new in rows}
    assert {old: new for old, new in FORMER_NAMES.items() if old != "repeats"} == documented


def test_names_in_recipes_exist_in_the_code() -> None:
    """New names are in code blocks alone."""
    recipes = _prose(ARCHITECTURE).partition("\n## Recipes\n")[2]
    quoted = set(re.findall(r"`(_?[A-Za-z]+(?:_[A-Za-z]+)+|[A-Z][a-z]+[A-Za-z]*|[A-Z]{4,})`", recipes))
    code = "\n".join(
        path.read_text(encoding="utf-8")
        for top in ("src", "tests", "bench")
        for path in (ROOT / top).rglob("*.py")
    )
    assert quoted
    assert not [name for name in sorted(quoted) if not re.search(rf"\b{name}\b", code)]


WRAPPERS = (
    "{}",
    "if True:\n{}",
    "def wrapper():\n{}",
    "def wrapper():\n match None:\n{}",
    "{{\n{}\n}}",
)
"""What makes a module of an excerpt of a file: nothing, a block, a function, a `match`, a dictionary."""

FROM_LIBRARIES = {"mul_"}
"""Attributes in recipes that are of a library, and that no other file in the folders of the recipe uses."""


def _recipes() -> list[tuple[str, str]]:
    """Return heading and text of each recipe."""
    section = ARCHITECTURE.read_text(encoding="utf-8").partition("\n## Recipes\n")[2]
    parts = re.split(r"^### (.+)$", section, flags=re.MULTILINE)
    return list(zip(parts[1::2], parts[2::2], strict=True))


def _parse_excerpt(excerpt: str) -> ast.Module:
    """Parse lines of a module, which may be the body of a class, a function, a `match` or a dictionary."""
    lines = dedent(excerpt)
    for wrapper in WRAPPERS:
        try:
            return ast.parse(wrapper.format(indent(lines, "  ") if ":" in wrapper else lines))
        except SyntaxError:
            continue
    raise AssertionError(f"not Python: {excerpt}")


def _list_fields_and_attributes(modules: Iterable[ast.Module], *, used: bool) -> Iterator[str]:
    """Yield the fields, functions and arguments that modules define, and the attributes that they use."""
    for node in (node for module in modules for node in ast.walk(module)):
        match node:
            case ast.AnnAssign(target=ast.Name(id=name)) | ast.FunctionDef(name=name) | ast.arg(arg=name):
                yield name
            case ast.Attribute(attr=name) if used:
                yield name


@pytest.mark.parametrize(("heading", "recipe"), _recipes(), ids=[heading for heading, _ in _recipes()])
def test_attributes_and_keywords_in_recipes_exist_in_the_code(heading: str, recipe: str) -> None:
    """They are in the folders of the files that the recipe names, or the recipe defines them."""
    blocks = [
        _parse_excerpt(block) for block in re.findall(r"^ *```python\n(.*?)^ *```$", recipe, re.M | re.S)
    ]
    named = [ROOT / path for path in re.findall(r"`((?:src|tests)/[\w/]+\.py)`", recipe)]
    files = {file for path in named for file in path.parent.glob("*.py")}
    modules = [ast.parse(file.read_text(encoding="utf-8")) for file in files]
    known = {
        *_list_fields_and_attributes(modules, used=True),
        *_list_fields_and_attributes(blocks, used=False),
        *FROM_LIBRARIES,
    }
    nodes = [node for block in blocks for node in ast.walk(block)]
    attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    assert blocks
    assert files
    assert not attributes - known
    fields = {
        definition.name: set(_list_fields_and_attributes([ast.Module(definition.body, [])], used=False))
        for module in modules
        for definition in module.body
        if isinstance(definition, ast.ClassDef)
    }
    for call in (node for node in nodes if isinstance(node, ast.Call)):
        if isinstance(call.func, ast.Name) and call.func.id in fields:
            assert {keyword.arg for keyword in call.keywords} <= fields[call.func.id]

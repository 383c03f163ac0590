"""dvc.yaml declares exactly the code, data and parameters that each stage uses."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML

from sentiment.lineage import TRAINING_INPUTS
from stages import evaluate
from tests.pipeline.imports import STAGES, find_dependency, find_modules
from tests.project import ROOT, Project

TRACER = """
import json, runpy, sys
from sentiment.params.section import Section

names, read = {}, set()

def name_all(section, prefix):
    names[id(section)] = prefix
    for key in type(section).model_fields:
        value = section.__dict__[key]
        if isinstance(value, Section):
            name_all(value, f"{prefix}{key}.")

def record(self, key):
    fields = object.__getattribute__(self, "__class__").__pydantic_fields__
    if key in fields and id(self) in names:
        read.add(names[id(self)] + key)
    return object.__getattribute__(self, key)

import sentiment.params
load, validate = sentiment.params.load_params, sentiment.params.Params.model_validate
kept = []  # a section that is garbage-collected would pass on its id

def validate_and_name(content):
    params = validate(content)
    kept.append(params)
    name_all(params, "")
    return params

def load_and_trace():
    params = load()
    Section.__getattribute__ = record
    return params

sentiment.params.Params.model_validate = validate_and_name
sentiment.params.load_params = load_and_trace
runpy.run_module(f"stages.{sys.argv[1]}", run_name="__main__")
del Section.__getattribute__
print("READ " + json.dumps(sorted(read)))
"""
"""Runs a stage and prints every parameter that it read by name. Dumping a whole section, as for the MLflow
parameters or the fingerprint, reads nothing by name but the kind of each variant."""


def _declared(root: Path) -> dict[str, Any]:
    return dict(YAML(typ="safe").load(root / "dvc.yaml")["stages"])


@pytest.mark.parametrize("stage", STAGES)
def test_params_read_are_params_declared(stage: str, project: Project) -> None:
    traced = project.run("python", "-c", TRACER, stage).stdout.splitlines()[-1]
    read = set(json.loads(traced.removeprefix("READ ")))
    entries = _declared(project.root)[stage]["params"]
    declared = _leaves(project, [entry for entry in entries if isinstance(entry, str)])
    unread = declared - read
    assert not unread, f"declared for {stage}, but never read: {unread}"
    undeclared = read & _leaves(project) - declared
    assert not undeclared, f"read by {stage}, but not declared: {undeclared}"


FREE_KEYS = ("tune.space", "evaluate.limits.behaviour")
"""Parameters that are read as one mapping, whose keys the user chooses."""


def _leaves(project: Project, parts: Iterable[str] | None = None) -> set[str]:
    """Return the dotted paths of all parameters, or of those in some parts of params.yaml, without kinds."""
    content = YAML(typ="safe").load(project.root / "params.yaml")

    def walk(node: Any, name: str) -> list[str]:
        if isinstance(node, dict) and name not in FREE_KEYS:
            return [leaf for key, value in node.items() for leaf in walk(value, f"{name}.{key}")]
        return [name]

    prefixes = tuple(f"{part}." for part in (content if parts is None else parts))
    leaves = {leaf for section in content for leaf in walk(content[section], section)}
    return {leaf for leaf in leaves if f"{leaf}.".startswith(prefixes) and not leaf.endswith(".kind")}


@pytest.mark.parametrize("stage", STAGES)
def test_code_used_is_code_declared(stage: str) -> None:
    declared = {dep for dep in _declared(ROOT)[stage]["deps"] if dep.startswith(("src/", "stages/"))}
    used = {f"stages/{stage}.py", *map(find_dependency, find_modules(f"stages/{stage}.py"))}
    assert declared == used - {None}


@pytest.mark.parametrize("stage", ["train", "tune"])
def test_learning_stages_depend_on_neither_holdout_nor_test(stage: str) -> None:
    """A dependency on a folder around a split would include it, so every dependency on data is listed."""
    splits = {f"data/tokens/{split}" for split in ("train", "validation", "unlabelled")}
    data = {dep for dep in _declared(ROOT)[stage]["deps"] if not dep.startswith(("src/", "stages/"))}
    assert data == {"data/tokens/tokenizer.json", *splits}


def test_vocabulary_is_learned_from_the_training_split(project: Project) -> None:
    """Other reviews in the holdout split change its tokens only."""
    before = (project.root / "data/tokens/tokenizer.json").read_bytes()
    table = pq.read_table(project.root / "data/reviews/train.parquet")
    every = np.arange(50) * (len(table) // 50)
    pq.write_table(table.take(every), project.root / "data/reviews/holdout.parquet")
    project.stage("tokenize")
    assert (project.root / "data/tokens/tokenizer.json").read_bytes() == before
    assert len(np.load(project.root / "data/tokens/holdout/labels.npy")) == 50


@pytest.mark.parametrize(
    "recorded", [TRAINING_INPUTS, evaluate.EVALUATION_INPUTS], ids=["training", "evaluate"]
)
def test_inputs_recorded_by_a_run_are_outputs_of_dvc_yaml(recorded: tuple[Path, ...]) -> None:
    stages = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    outputs = {out for stage in stages.values() for out in stage["outs"] if isinstance(out, str)}
    assert {path.as_posix() for path in recorded} <= outputs

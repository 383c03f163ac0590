"""What a run records so that it can be rebuilt: commit and diff, inputs, parameters, packages, processor."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sentiment import paths
from sentiment.tracking.provenance import (
    DIRTY,
    dvc_hashes,
    installed_packages,
    machine_tags,
    redactor,
    source_tags,
    tree_difference,
    unnamed_inputs,
)
from sentiment.tracking.run import Run, flattened

INPUT_TAG = "dvc.md5."
"""Before the path of an input: its MD5 in `dvc.lock`."""

DIFF, PACKAGES = "source.diff", "packages.txt"
CHANGED_TAG = "params.changed"
"""On a run that was resumed: parameters that params.yaml had otherwise when it started."""


def log_story(run: Run, inputs: Iterable[Path]) -> None:
    """Record what is needed to rebuild a run; of a run that is resumed, what holds now.

    Args:
        run: the run.
        inputs: files and folders that its stage reads; those that do not exist are left out.
    """
    hashes = dvc_hashes(inputs)
    tags = source_tags(unnamed_inputs(hashes))
    run.retag("git.", {name.removeprefix("git."): tags[name] for name in tags if name.startswith("git.")})
    run.tag({**tags, **machine_tags(), **{f"{INPUT_TAG}{path}": md5 for path, md5 in hashes.items()}})
    run.log_page(PACKAGES, installed_packages())
    redacted = redactor()
    difference = tree_difference() if tags.get(DIRTY) == "true" else None
    if difference is not None:
        run.log_page(DIFF, redacted(difference))
    for file in (paths.PARAMS, paths.metrics("download")):
        if file.is_file():
            run.log_page(file.name, redacted(file.read_text(encoding="utf-8", errors="replace")))


def log_parameters(run: Run, params: Mapping[str, Any]) -> None:
    """Log parameters by their dotted path in `params.yaml`, lists of sections by number.

    MLflow keeps a run's parameters as they are. So those that a resumed run has with another value, which are
    none that decide its model, go to a tag.
    """
    redacted = redactor()
    given = {name: redacted(str(value)) for name, value in flattened(params).items()}
    had = run.params()
    run.log_params({name: value for name, value in given.items() if name not in had})
    changed = [
        f"{name}: {had[name]}, now {value}" for name, value in given.items() if had.get(name, value) != value
    ]
    if changed:
        run.tag({CHANGED_TAG: "; ".join(changed)})


def evaluation_tags(inputs: Iterable[Path], params: Mapping[str, Any]) -> dict[str, str]:
    """Return tags, to be set below `evaluate.`, of the code, data and parameters behind test metrics."""
    hashes = dvc_hashes(inputs)
    source = source_tags(unnamed_inputs(hashes))
    return {
        **{name: value for name, value in source.items() if name.startswith("git.")},
        **machine_tags(),
        **{f"{INPUT_TAG}{path}": md5 for path, md5 in hashes.items()},
        **{name: str(value) for name, value in flattened(params).items()},
    }

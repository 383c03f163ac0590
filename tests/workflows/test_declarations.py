"""What the workflows, the Makefile and the commit hooks have to agree on."""

import re

from ruamel.yaml import YAML

from tests.project import ROOT
from tests.workflows.forge import JOB_KEYS, STEP_KEYS

WORKFLOWS = ROOT / ".github/workflows"


def _read_jobs(name: str) -> dict[str, dict[str, object]]:
    return dict(YAML(typ="safe").load(WORKFLOWS / name)["jobs"])


def test_cache_is_restored_with_the_paths_that_it_is_saved_with() -> None:
    """GitHub finds an entry only under the same list of paths."""
    steps = [
        step
        for name in ("retrain.yml", "promote.yml")
        for job in _read_jobs(name).values()
        for step in job["steps"]  # type: ignore[attr-defined]
        if "actions/cache/" in step.get("uses", "")
    ]
    assert len(steps) == 4
    assert len({(step["with"]["path"], step["with"]["key"]) for step in steps}) == 1


def test_jobs_that_write_install_nothing() -> None:
    for name in ("retrain.yml", "promote.yml"):
        for job in _read_jobs(name).values():
            actions = [step.get("uses", "") for step in job["steps"]]  # type: ignore[attr-defined]
            scripts = "\n".join(step.get("run", "") for step in job["steps"])  # type: ignore[attr-defined]
            if "write" in dict(job["permissions"]).values():  # type: ignore[call-overload]
                assert not any("setup-python" in action or "cache" in action for action in actions)
                assert not re.search(r"^\s*(make|pip|python|\S*\.venv)\b", scripts, re.MULTILINE)


def test_executor_knows_every_key() -> None:
    for name in ("retrain.yml", "promote.yml"):
        for job in _read_jobs(name).values():
            assert job.keys() <= JOB_KEYS
            assert all(step.keys() <= STEP_KEYS for step in job["steps"])  # type: ignore[attr-defined]


def test_pull_request_is_tested_once_on_every_supported_python() -> None:
    workflow = YAML(typ="safe").load(WORKFLOWS / "test.yml")
    assert workflow["on"] == {"push": {"branches": ["main"]}, "pull_request": None}
    job = workflow["jobs"]["test"]
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.13"]
    assert [step["run"] for step in job["steps"] if "run" in step] == [
        "make setup",
        "make lint",
        "make test-all",
    ]


def test_ci_runs_the_targets_of_the_workflow() -> None:
    lines = (ROOT / ".ci/run").read_text().splitlines()
    assert [line for line in lines if line.startswith("make ")] == ["make lint", "make test-all"]


def test_commit_hooks_run_what_lint_runs() -> None:
    hooks = YAML(typ="safe").load(ROOT / ".pre-commit-config.yaml")["repos"]
    assert [repository["repo"] for repository in hooks] == ["local"]
    recipe = (ROOT / "Makefile").read_text().partition("\nlint:")[2].partition("\n\n")[0].splitlines()[1:]
    for hook, line in zip(hooks[0]["hooks"], recipe, strict=True):
        entry, command = hook["entry"].removeprefix(".venv/bin/"), line.strip()
        if hook.get("pass_filenames", True):  # then the hook has no patterns of files
            command = command.partition(" ")[0]
        assert entry == command

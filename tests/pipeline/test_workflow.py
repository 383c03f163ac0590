"""The workflows: the shell steps of the job that opens pull requests, as a runner runs them, and the matrix.

GitHub itself is not available: `gh` is a script that answers as GitHub would. Git, the remote and the refused
push are real.
"""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.project import ROOT

pytestmark = pytest.mark.slow  # bash and git

GH = """#!/bin/sh
case "$1 $2" in
    "pr list") [ -z "$LIST_FAILS" ] || exit 1; printf '%s' "$EARLIER" ;;
    "pr create") [ -z "$CREATE_FAILS" ] || exit 1; echo https://github.com/owner/name/pull/7 ;;
esac
"""


@dataclass(frozen=True)
class Runner:
    """A checkout with the artifact of the other job, and a remote."""

    folder: Path

    @property
    def summary(self) -> str:
        """The summary that the steps wrote."""
        file = self.folder / "summary.md"
        return file.read_text() if file.exists() else ""

    def git(self, *arguments: str, where: str = "checkout") -> str:
        command = ["git", *arguments]
        done = subprocess.run(command, cwd=self.folder / where, capture_output=True, text=True, check=True)
        return done.stdout

    def propose(self, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the job's scripts, one after the other, and return the first that fails or the last."""
        jobs = YAML(typ="safe").load(ROOT / ".github/workflows/retrain.yml")["jobs"]
        scripts = [step["run"] for step in jobs["propose"]["steps"] if "run" in step]
        assert len(scripts) == 2
        given = {
            "PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.folder),
            "RUNNER_TEMP": str(self.folder),
            "GITHUB_STEP_SUMMARY": str(self.folder / "summary.md"),
            "GITHUB_SERVER_URL": "https://github.com",
            "GITHUB_REPOSITORY": "owner/name",
            "GITHUB_RUN_ID": "1",
            "GITHUB_REF_NAME": "main",
            **environment,
        }
        for script in scripts:
            done = subprocess.run(
                ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
                cwd=self.folder / "checkout",
                env=given,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                break
        return done


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    runner = Runner(tmp_path)
    checkout, proposal = tmp_path / "checkout", tmp_path / "proposal"
    for folder in (checkout / "metrics", proposal / "metrics", proposal / "reports", tmp_path / "bin"):
        folder.mkdir(parents=True)
    (tmp_path / "bin/gh").write_text(GH)
    (tmp_path / "bin/gh").chmod(0o755)
    for folder, text in ((checkout, "before\n"), (proposal, "after\n")):
        (folder / "dvc.lock").write_text(text)
        (folder / "metrics/evaluate.json").write_text(text)
    (proposal / "reports/retrain.md").write_text("# Retraining\n")
    runner.git("init", "-q", "--bare", str(tmp_path / "remote"))
    runner.git("init", "-q", "-b", "main")
    runner.git("remote", "add", "origin", str(tmp_path / "remote"))
    runner.git("add", ".")
    runner.git("-c", "user.name=test", "-c", "user.email=test@localhost", "commit", "-qm", "start")
    return runner


def test_changed_results_become_a_pull_request(runner: Runner) -> None:
    assert runner.propose().returncode == 0
    assert "Opened https://github.com/owner/name/pull/7" in runner.summary
    (branch,) = runner.git(
        "branch", "--list", "retrain/*", "--format=%(refname:short)", where="remote"
    ).split()
    assert runner.git("show", f"{branch}:dvc.lock", where="remote") == "after\n"
    assert runner.git("show", f"{branch}:metrics/evaluate.json", where="remote") == "after\n"
    body = (runner.folder / "body.md").read_text()
    assert body.startswith("# Retraining\n")
    assert "https://github.com/owner/name/actions/runs/1" in body


def test_result_that_was_proposed_before_is_not_proposed_again(runner: Runner) -> None:
    assert runner.propose(EARLIER="https://github.com/owner/name/pull/3").returncode == 0
    assert "proposed before: https://github.com/owner/name/pull/3" in runner.summary
    assert runner.git("branch", "--list", where="remote") == ""


def test_refused_push_is_in_the_summary(runner: Runner) -> None:
    hook = runner.folder / "remote/hooks/pre-receive"
    hook.write_text("#!/bin/sh\necho no branches here >&2\nexit 1\n")
    hook.chmod(0o755)
    done = runner.propose()
    assert done.returncode == 1
    assert "::error::The branch" in done.stdout
    assert "could not be pushed, so there is no pull request" in runner.summary
    assert "`proposal`" in runner.summary
    assert "no branches here" in done.stderr


def test_refused_pull_request_is_in_the_summary(runner: Runner) -> None:
    done = runner.propose(CREATE_FAILS="1")
    assert done.returncode == 1
    assert "::error::" in done.stdout
    assert "Open it yourself: https://github.com/owner/name/compare/main...retrain/" in runner.summary


def test_failed_query_of_pull_requests_is_in_the_summary(runner: Runner) -> None:
    done = runner.propose(LIST_FAILS="1")
    assert done.returncode == 1
    assert "nothing was pushed" in runner.summary
    assert runner.git("branch", "--list", where="remote") == ""


def test_pull_request_is_tested_once_on_every_supported_python() -> None:
    workflow = YAML(typ="safe").load(ROOT / ".github/workflows/test.yml")
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
    entries = [hook["entry"].removeprefix(".venv/bin/") for hook in hooks[0]["hooks"]]
    assert entries == [line.strip() for line in recipe]

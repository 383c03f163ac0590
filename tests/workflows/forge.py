"""A forge on this machine that executes the workflows of a repository, one job after the other.

A run reads the workflow from the repository, as GitHub does, and runs each job in an empty folder: its
actions (`actions.py`), its scripts with bash, its conditions (`expressions.py`). Git, the shells and all
programs that the scripts call are real, except for `gh` (`gh.py`). What this executor does not know, such as
a new key of a step, fails.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.project import Project
from tests.workflows import gh
from tests.workflows.actions import ActionError, Job, run_action
from tests.workflows.expressions import Contexts, holds, interpolate
from tests.workflows.git_server import GitServer, serving_git

REPOSITORY = "owner/name"
STEP_LIMIT_S = 900
JOB_KEYS = {"name", "needs", "if", "runs-on", "timeout-minutes", "permissions", "outputs", "env", "steps"}
STEP_KEYS = {
    "name",
    "id",
    "if",
    "run",
    "uses",
    "with",
    "env",
    "shell",
    "continue-on-error",
    "timeout-minutes",
}
SHELLS = {None: ["bash", "-e"], "bash": ["bash", "--noprofile", "--norc", "-eo", "pipefail"]}
"""Commands of a runner by the value of `shell`."""
Workflow = Mapping[str, Any]


@dataclass
class JobRun:
    """Result of a job.

    Attributes:
        result: success, failure or skipped.
        outputs: outputs of the job.
        summary: what its steps wrote to the summary.
        log: output of its steps, each after its name.
        steps: outcome of each step, by its name, action or script.
    """

    result: str
    outputs: dict[str, str] = field(default_factory=dict)
    summary: str = ""
    log: str = ""
    steps: dict[str, str] = field(default_factory=dict)


@dataclass
class WorkflowRun:
    """Result of a workflow.

    Attributes:
        workflow: name of its file.
        github: the context `github` of its expressions.
        jobs: its jobs by name, in the order in which they ran.
    """

    workflow: str
    github: dict[str, Any]
    jobs: dict[str, JobRun] = field(default_factory=dict)

    @property
    def results(self) -> dict[str, str]:
        return {name: job.result for name, job in self.jobs.items()}

    @property
    def summary(self) -> str:
        return "".join(job.summary for job in self.jobs.values())

    @property
    def log(self) -> str:
        return "".join(job.log for job in self.jobs.values())

    def require(self, **results: str) -> "WorkflowRun":
        """Require the results of jobs; the message of a failure has their logs."""
        assert {name: self.results[name] for name in results} == results, f"{self.results}\n{self.log}"
        return self


@dataclass
class Forge:
    """The repository on the forge, its Actions cache, pull requests and issues, and the runner.

    Attributes:
        folder: folder of everything.
        server: where jobs reach the repository.
        secrets: secrets of the repository.
        variables: environment of all steps, in addition to that of the workflows.
        runs: number of runs so far.
    """

    folder: Path
    server: GitServer
    secrets: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    runs: int = 0

    @property
    def bare(self) -> Path:
        """The bare repository."""
        return self.folder / "repositories" / f"{REPOSITORY}.git"

    @property
    def state(self) -> dict[str, Any]:
        """Pull requests and issues, see `gh.read_state`."""
        return gh.read_state(self.folder / "gh.json")

    @property
    def open_pulls(self) -> list[dict[str, Any]]:
        return [pull for pull in self.state["pr"] if pull["state"] == "open"]

    @property
    def open_issues(self) -> list[dict[str, Any]]:
        return [issue for issue in self.state["issue"] if issue["state"] == "open"]

    def git(self, *arguments: str) -> str:
        """Run a git command in the bare repository and return its output."""
        done = subprocess.run(["git", *arguments], cwd=self.bare, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    @contextmanager
    def refusing(self, *commands: str) -> Iterator[None]:
        """Let commands of `gh`, such as `pr create`, fail in the block."""
        self._update(refused=list(commands))
        try:
            yield
        finally:
            self._update(refused=[])

    @contextmanager
    def refusing_pushes(self, pattern: str) -> Iterator[None]:
        """Refuse pushes to branches that match a pattern of the shell in the block."""
        hook = self.bare / "hooks/update"
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f'#!/bin/sh\ncase "$1" in {pattern}) echo "protected: $1" >&2; exit 1;; esac\n')
        hook.chmod(0o755)
        try:
            yield
        finally:
            hook.unlink()

    def _update(self, **changes: Any) -> None:
        gh.write_state(self.folder / "gh.json", {**self.state, **changes})

    def clone(self, folder: Path) -> Project:
        """Return a colleague's clone."""
        subprocess.run(["git", "clone", "-q", self.bare, folder], check=True)
        for name, value in (("user.name", "colleague"), ("user.email", "colleague@localhost")):
            subprocess.run(["git", "config", name, value], cwd=folder, check=True)
        return Project(folder)

    def merge(self, number: int) -> list[WorkflowRun]:
        """Merge a pull request, and return the runs that this starts."""
        (pull,) = (pull for pull in self.open_pulls if pull["number"] == number)
        folder = self.folder / "merge"
        shutil.rmtree(folder, ignore_errors=True)
        clone = self.clone(folder)
        clone.run("git", "merge", "-q", "--no-ff", "-m", pull["title"], f"origin/{pull['headRefName']}")
        runs = self.push(clone)
        pulls = [{**other, "state": "merged"} if other == pull else other for other in self.state["pr"]]
        self._update(pr=pulls)
        return runs

    def push(self, clone: Project) -> list[WorkflowRun]:
        """Push a clone's HEAD to main, and return the runs that this starts, without those of test.yml."""
        before = self.git("rev-parse", "main")
        clone.run("git", "push", "-q", "origin", "HEAD:main")
        changed = self.git("diff", "--name-only", before, "main").splitlines()
        names = self.git("ls-tree", "--name-only", "main", ".github/workflows/").splitlines()
        return [
            self.run(Path(name).name, event="push")
            for name in names
            if Path(name).name != "test.yml" and _is_triggered(self.read_workflow(name), changed)
        ]

    def read_workflow(self, path: str) -> Workflow:
        """Read a workflow on the branch main."""
        workflow: Workflow = YAML(typ="safe").load(self.git("show", f"main:{path}"))
        assert workflow.keys() <= {"name", "on", "permissions", "concurrency", "jobs"}, workflow.keys()
        assert workflow["permissions"] == {}, "jobs take what they need"
        return workflow

    def run(self, name: str, event: str = "workflow_dispatch", schedule: str | None = None) -> WorkflowRun:
        """Execute a workflow on the newest commit of main."""
        self.runs += 1
        github = {
            "event": {"schedule": schedule} if schedule else {},
            "event_name": event,
            "ref": "refs/heads/main",
            "ref_name": "main",
            "repository": REPOSITORY,
            "run_attempt": "1",
            "run_id": str(self.runs),
            "server_url": self.server.address,
            "sha": self.git("rev-parse", "main"),
        }
        return self._run_jobs(WorkflowRun(name, github))

    def run_failed_jobs_again(self, run: WorkflowRun) -> WorkflowRun:
        """Run the failed jobs of a run, and those that need them, with the artifacts that it has."""
        jobs = self.read_workflow(f".github/workflows/{run.workflow}")["jobs"]
        failed = {key for key, job in run.jobs.items() if job.result == "failure"}
        kept = {
            key: job
            for key, job in run.jobs.items()
            if key not in failed and not failed & _list_ancestors(key, jobs)
        }
        github = {**run.github, "run_attempt": str(int(run.github["run_attempt"]) + 1)}
        return self._run_jobs(WorkflowRun(run.workflow, github, kept))

    def _run_jobs(self, run: WorkflowRun) -> WorkflowRun:
        """Run all jobs that have no result yet, each after those that it needs."""
        jobs = self.read_workflow(f".github/workflows/{run.workflow}")["jobs"]
        waiting = {key: job for key, job in jobs.items() if key not in run.jobs}
        while waiting:
            key = next(key for key, job in waiting.items() if not set(_list_needs(job)) & waiting.keys())
            run.jobs[key] = self._run_job(key, waiting.pop(key), jobs, run)
        return run

    def _run_job(self, key: str, job: Workflow, jobs: Mapping[str, Workflow], run: WorkflowRun) -> JobRun:
        assert job.keys() <= JOB_KEYS, f"{key}: unknown keys {job.keys() - JOB_KEYS}"
        ancestors = [run.jobs[name].result for name in _list_ancestors(key, jobs)]
        needs = {
            name: {"result": run.jobs[name].result, "outputs": run.jobs[name].outputs}
            for name in _list_needs(job)
        }
        token = f"token-{run.github['run_id']}-{run.github['run_attempt']}-{key}"
        values = {
            "github": {**run.github, "token": token},
            "needs": needs,
            "vars": {},
            "secrets": self.secrets,
        }
        contexts = Contexts(
            values,
            failed="failure" in ancestors,
            skipped=any(need["result"] == "skipped" for need in needs.values()),
        )
        if not holds(job.get("if"), contexts):
            return JobRun("skipped")
        permissions = dict(job["permissions"])
        self.server.can_push[token] = permissions.get("contents") == "write"
        self._update(tokens={**self.state["tokens"], token: permissions})
        return _Runner(self, key, job, values).run()


def _is_triggered(workflow: Workflow, changed: list[str]) -> bool:
    """Return whether a push to main that changed some files starts a workflow."""
    push = workflow["on"].get("push")
    if push is None:
        return False
    assert push.keys() <= {"branches", "paths"}, push.keys()
    patterns = push.get("paths", ["*"])
    return "main" in push["branches"] and any(fnmatchcase(file, one) for file in changed for one in patterns)


def _list_needs(job: Workflow) -> list[str]:
    needs = job.get("needs", [])
    return [needs] if isinstance(needs, str) else list(needs)


def _list_ancestors(key: str, jobs: Mapping[str, Workflow]) -> set[str]:
    needs = _list_needs(jobs[key])
    return {*needs, *(other for need in needs for other in _list_ancestors(need, jobs))}


class _Runner:
    """A fresh machine with one job. All jobs have the same paths, as on GitHub."""

    def __init__(self, forge: Forge, key: str, job: Workflow, values: dict[str, Any]) -> None:
        self.forge, self.key, self.job = forge, key, job
        machine = forge.folder / "runner"
        shutil.rmtree(machine, ignore_errors=True)
        github = values["github"]
        self.files = machine / "files"
        self.paths = Job(
            workspace=machine / "work/name/name",
            temporary=machine / "work/_temp",
            address=f"{forge.server.address}/{REPOSITORY}",
            commit=github["sha"],
            branch=github["ref_name"],
            caches=forge.folder / "caches",
            artifacts=forge.folder / "artifacts" / github["run_id"],
        )
        for folder in (
            self.paths.workspace,
            self.paths.temporary,
            machine / "home",
            machine / "bin",
            self.files,
        ):
            folder.mkdir(parents=True)
        program = machine / "bin/gh"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -I {gh.__file__} {forge.folder}/gh.json "$@"\n')
        program.chmod(0o755)
        self.steps: dict[str, Any] = {}
        self.values = {**values, "runner": {"temp": str(self.paths.temporary)}, "steps": self.steps}
        own_programs = str(Path(sys.prefix) / "bin")
        system_path = [path for path in os.environ["PATH"].split(os.pathsep) if path != own_programs]
        self.machine_environment = {
            "PATH": os.pathsep.join([str(machine / "bin"), *system_path]),
            "HOME": str(machine / "home"),
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(self.paths.workspace / "src"),  # the packages are those of another repository
            "OMP_NUM_THREADS": "1",
            "DVC_SITE_CACHE_DIR": str(machine / "var"),  # a new machine has an empty one
            "CI": "true",
            "GITHUB_ACTIONS": "true",
            "GITHUB_EVENT_NAME": github["event_name"],
            "GITHUB_REF": github["ref"],
            "GITHUB_REF_NAME": github["ref_name"],
            "GITHUB_REPOSITORY": github["repository"],
            "GITHUB_RUN_ATTEMPT": github["run_attempt"],
            "GITHUB_RUN_ID": github["run_id"],
            "GITHUB_SERVER_URL": github["server_url"],
            "GITHUB_SHA": github["sha"],
            "GITHUB_WORKSPACE": str(self.paths.workspace),
            "RUNNER_TEMP": str(self.paths.temporary),
            **forge.variables,
        }

    def run(self) -> JobRun:
        """Run the steps in order."""
        result = JobRun("success")
        for number, step in enumerate(self.job["steps"]):
            assert step.keys() <= STEP_KEYS, f"{self.key}: unknown keys {step.keys() - STEP_KEYS}"
            environment = self._interpolate_all(self.job.get("env"), {})
            environment |= self._interpolate_all(step.get("env"), environment)
            contexts = self._contexts(environment, failed=result.result == "failure")
            name = str(step.get("name") or step.get("run") or step["uses"])
            outcome, outputs = "skipped", dict[str, str]()
            if holds(step.get("if"), contexts):
                outcome, outputs = self._run_step(number, step, contexts, environment, result)
            result.steps[name] = outcome
            is_tolerated = step.get("continue-on-error", False)
            assert isinstance(is_tolerated, bool)
            if outcome == "failure" and not is_tolerated:
                result.result = "failure"
            if "id" in step:
                conclusion = "success" if is_tolerated and outcome == "failure" else outcome
                self.steps[step["id"]] = {"outcome": outcome, "conclusion": conclusion, "outputs": outputs}
        contexts = self._contexts({}, failed=False)
        result.outputs = {
            name: interpolate(value, contexts) for name, value in self.job.get("outputs", {}).items()
        }
        return result

    def _contexts(self, environment: dict[str, str], *, failed: bool) -> Contexts:
        status = "failure" if failed else "success"
        return Contexts({**self.values, "env": environment, "job": {"status": status}}, failed=failed)

    def _interpolate_all(
        self, values: Mapping[str, object] | None, environment: dict[str, str]
    ) -> dict[str, str]:
        contexts = self._contexts(environment, failed=False)
        return {name: interpolate(value, contexts) for name, value in (values or {}).items()}

    def _run_step(
        self, number: int, step: Workflow, contexts: Contexts, environment: dict[str, str], result: JobRun
    ) -> tuple[str, dict[str, str]]:
        """Run a step and return its outcome and outputs."""
        name = str(step.get("name") or step.get("run") or step["uses"])
        result.log += f"\n### {self.key}: {name}\n"
        if "uses" in step:
            inputs = {key: interpolate(value, contexts) for key, value in step.get("with", {}).items()}
            try:
                return "success", run_action(step["uses"], self.paths, inputs)
            except ActionError as error:
                result.log += f"{error}\n"
                return "failure", {}
        files = {
            variable: self.files / f"{number}-{variable}"
            for variable in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "GITHUB_ENV", "GITHUB_PATH")
        }
        for file in files.values():
            file.touch()
        script = self.files / f"{number}.sh"
        script.write_text(interpolate(step["run"], contexts))
        variables = self.machine_environment | environment | {key: str(file) for key, file in files.items()}
        status, output = _run_script(
            [*SHELLS[step.get("shell")], str(script)], self.paths.workspace, variables
        )
        result.log += output
        result.summary += files["GITHUB_STEP_SUMMARY"].read_text()
        for variable in ("GITHUB_ENV", "GITHUB_PATH"):
            assert not files[variable].read_text(), f"{variable} is not supported here"
        lines = files["GITHUB_OUTPUT"].read_text().splitlines()
        assert all("=" in line for line in lines), f"only lines `name=value` are supported: {lines}"
        outputs = {key: value for key, _, value in (line.partition("=") for line in lines)}
        return ("success" if status == 0 else "failure"), outputs


def _run_script(command: list[str], folder: Path, environment: dict[str, str]) -> tuple[int, str]:
    """Run a script and return its status and output."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=STEP_LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        return 124, f"{output}\nno end within {STEP_LIMIT_S} s\n"
    return process.returncode, output


@contextmanager
def hosting(folder: Path, project: Path) -> Iterator[Forge]:
    """Put a repository on a new forge."""
    with serving_git(folder / "repositories") as server:
        forge = Forge(folder, server)
        forge.bare.mkdir(parents=True)
        forge.git("init", "-q", "--bare", "-b", "main")
        for name in ("uploadpack.allowAnySHA1InWant", "uploadpack.allowFilter"):
            forge.git("config", name, "true")
        subprocess.run(["git", "push", "-q", forge.bare, "HEAD:main"], cwd=project, check=True)
        yield forge

"""Which results the job `propose` of `retrain.yml` proposes, and which it does not propose again."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.project import ROOT
from tests.workflows import gh
from tests.workflows.forge import Forge, hosting

pytestmark = pytest.mark.slow  # bash and git

FILES = ("dvc.lock", "metrics/evaluate.json", "reports/evaluation.md", "reports/retrain.md")


@dataclass(frozen=True)
class Proposals:
    """A forge with the job alone, after one that hands it a `dvc.lock`."""

    forge: Forge

    def propose(self, content: str) -> str:
        """Propose a `dvc.lock` with this content; return the summary."""
        self.forge.variables["CONTENT"] = content
        return self.forge.run("retrain.yml").require(propose="success").summary

    @property
    def states(self) -> list[str]:
        return [pull["state"] for pull in self.forge.state["pr"]]

    def change(self, number: int, **changes: Any) -> None:
        """Change a pull request, as a person does."""
        state = self.forge.state
        state["pr"][number - 1].update(changes)
        gh.write_state(self.forge.folder / "gh.json", state)

    def add(self, head: str, **changes: Any) -> None:
        """Open a pull request for a new branch of another program, or of a fork."""
        state, number = self.forge.state, len(self.states) + 1
        pull = {**state["pr"][0], "number": number, "headRefName": head, "state": "open", "comments": []}
        state["pr"].append({**pull, "url": f"https://forge/pull/{number}", **changes})
        gh.write_state(self.forge.folder / "gh.json", state)


@pytest.fixture
def proposals(tmp_path: Path) -> Iterator[Proposals]:
    project = tmp_path / "project"
    for name in (*FILES, "data/incoming/README.md"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("old\n")
    shutil.copytree(ROOT / ".github/scripts", project / ".github/scripts")
    yaml = YAML(typ="safe")
    job = yaml.load(ROOT / ".github/workflows/retrain.yml")["jobs"]["propose"]
    train = {
        "permissions": {},
        "outputs": {"outcome": "promote"},
        "steps": [
            {"run": "mkdir metrics reports"},
            {"run": f'echo "$CONTENT" | tee {" ".join(FILES)}'},
            {
                "uses": "actions/upload-artifact@1",
                "with": {"name": "proposal", "path": "\n".join(FILES), "retention-days": 1},
            },
        ],
    }
    workflow = {
        "name": "Retrain",
        "on": "workflow_dispatch",
        "permissions": {},
        "jobs": {"train": train, "propose": {**job, "needs": "train"}},
    }
    path = project / ".github/workflows/retrain.yml"
    path.parent.mkdir()
    path.write_text(json.dumps(workflow))  # JSON is YAML
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost"]
    for arguments in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-qm", "start"]):
        subprocess.run([*git, *arguments], cwd=project, check=True)
    with hosting(tmp_path / "forge", project) as forge:
        yield Proposals(forge)


def test_superseded_result_is_proposed_again_and_one_that_a_person_closed_is_not(
    proposals: Proposals,
) -> None:
    assert "Opened" in proposals.propose("one")
    assert "Opened" in proposals.propose("two")
    assert proposals.states == ["closed", "open"]
    assert "Opened" in proposals.propose("one")
    assert proposals.states == ["closed", "closed", "open"]
    proposals.change(3, state="closed", comments=["I do not want this"])
    assert "proposed before" in proposals.propose("one")
    assert proposals.states == ["closed", "closed", "closed"]


def test_open_proposal_is_not_repeated_and_closes_the_others(proposals: Proposals) -> None:
    proposals.propose("one")
    proposals.forge.git("branch", "retrain/other", "main")
    proposals.add("retrain/other")
    assert "Closed #2" in proposals.propose("one")
    assert proposals.states == ["open", "closed"]
    assert proposals.forge.git("branch", "--list", "retrain/other") == ""
    proposals.change(1, state="merged")
    assert "proposed before" in proposals.propose("one")


def test_pull_request_of_a_fork_does_not_count(proposals: Proposals) -> None:
    proposals.propose("one")
    head = proposals.forge.state["pr"][0]["headRefName"]
    proposals.change(1, isCrossRepository=True)
    assert "Opened" in proposals.propose("one")
    assert [pull["headRefName"] for pull in proposals.forge.open_pulls] == [head, head]

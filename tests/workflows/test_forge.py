"""The executor of workflows, by workflows whose results on GitHub are known."""

import subprocess
from pathlib import Path

import pytest

from tests.workflows.forge import Forge, WorkflowRun, hosting

pytestmark = pytest.mark.slow  # bash and git

CHECKOUT = "- {uses: actions/checkout@1, with: {persist-credentials: false}}"
JOB = "{permissions: {contents: read}, steps: [{run: 'true'}]}"


def _execute(folder: Path, jobs: str, *, runs: int = 1) -> tuple[Forge, list[WorkflowRun]]:
    """Run a workflow with these jobs in a repository of two commits."""
    project = folder / "project"
    workflow = project / ".github/workflows/one.yml"
    workflow.parent.mkdir(parents=True)
    workflow.write_text(f"name: One\non: workflow_dispatch\npermissions: {{}}\njobs:\n{jobs}")
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost"]
    subprocess.run(["git", "init", "-q", "-b", "main", project], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], cwd=project, check=True)
    subprocess.run(["git", "add", "."], cwd=project, check=True)
    subprocess.run([*git, "commit", "-qm", "second"], cwd=project, check=True)
    with hosting(folder / "forge", project) as forge:
        return forge, [forge.run("one.yml") for _ in range(runs)]


def test_jobs_run_by_needs_and_conditions(tmp_path: Path) -> None:
    _, (run,) = _execute(
        tmp_path,
        f"""
  last: {{needs: [bad, after], if: failure(), permissions: {{}}, steps: [{{run: 'true'}}]}}
  bad:
    permissions: {{}}
    steps: [{{run: exit 1}}, {{run: echo skipped}}, {{if: always(), run: echo cleaned}}]
  after: {{needs: bad, permissions: {{}}, steps: [{{run: 'true'}}]}}
  other: {JOB}
  beside: {{needs: [other, after], if: "!cancelled()", permissions: {{}}, steps: [{{run: 'true'}}]}}
""",
    )
    assert run.results == {
        "bad": "failure",
        "after": "skipped",
        "last": "success",
        "other": "success",
        "beside": "success",
    }
    assert "cleaned\n" in run.log
    assert "skipped\n" not in run.log


def test_outputs_environment_and_summary(tmp_path: Path) -> None:
    _, (run,) = _execute(
        tmp_path,
        """
  one:
    permissions: {}
    env: {NAME: "${{ github.ref_name }}"}
    outputs: {value: "${{ steps.first.outputs.value }}"}
    steps:
      - id: first
        env: {OTHER: "${{ env.NAME }}!"}
        run: echo "value=$OTHER" >> "$GITHUB_OUTPUT"
      - {id: tolerated, continue-on-error: true, run: exit 3}
      - if: steps.tolerated.outcome == 'failure' && steps.tolerated.conclusion == 'success'
        run: echo "# Summary" >> "$GITHUB_STEP_SUMMARY"
  two:
    needs: one
    if: needs.one.outputs.value == 'main!'
    permissions: {}
    steps: [{run: "echo ${{ needs.one.outputs.value }} $(command -v dvc sentiment)"}]
""",
    )
    assert run.results == {"one": "success", "two": "success"}
    assert run.summary == "# Summary\n"
    assert "main!\n" in run.log, "a job without actions/setup-python has none of the packages"


def test_checkout_is_shallow_unless_it_says_otherwise(tmp_path: Path) -> None:
    full = CHECKOUT.replace("persist", "fetch-depth: 0, persist")
    jobs = "".join(
        f"""
  {name}:
    permissions: {{}}
    steps:
      {action}
      - run: git rev-list --count HEAD"""
        for name, action in (("shallow", CHECKOUT), ("full", full))
    )
    _, (run,) = _execute(tmp_path, jobs)
    assert run.jobs["shallow"].log.endswith("\n1\n")
    assert run.jobs["full"].log.endswith("\n2\n")


@pytest.mark.parametrize(
    ("permission", "helper", "result"),
    [("write", True, "success"), ("read", True, "failure"), ("write", False, "failure")],
)
def test_push_needs_permission_and_token(permission: str, helper: bool, result: str, tmp_path: Path) -> None:
    environment = (
        '{GH_TOKEN: "${{ github.token }}", GIT_TERMINAL_PROMPT: "0", GIT_CONFIG_COUNT: "1", '
        'GIT_CONFIG_KEY_0: credential.helper, GIT_CONFIG_VALUE_0: "!gh auth git-credential"}'
    )
    forge, (run,) = _execute(
        tmp_path,
        f"""
  push:
    permissions: {{contents: {permission}}}
    steps:
      {CHECKOUT}
      - run: |
          head -c 3000000 /dev/urandom > big
          git add big
          git -c user.name=test -c user.email=test@localhost commit -qm big
      - env: {environment if helper else "{GIT_TERMINAL_PROMPT: '0'}"}
        run: git push -q origin HEAD:refs/heads/pushed
""",
    )
    assert run.results == {"push": result}, run.log
    assert bool(forge.git("branch", "--list", "pushed")) == (result == "success")


def test_gh_needs_permission(tmp_path: Path) -> None:
    script = 'gh issue create --repo "$GITHUB_REPOSITORY" --title T --body B'
    jobs = "".join(
        f"""
  {name}:
    permissions: {{issues: {permission}}}
    steps: [{{env: {{GH_TOKEN: "${{{{ github.token }}}}"}}, run: '{script}'}}]
"""
        for name, permission in (("writer", "write"), ("reader", "read"))
    )
    forge, (run,) = _execute(tmp_path, jobs)
    assert run.results == {"writer": "success", "reader": "failure"}
    assert [issue["title"] for issue in forge.open_issues] == ["T"]


def test_newest_cache_with_the_prefix_is_restored(tmp_path: Path) -> None:
    with_inputs = 'path: "kept", key: "k-${{ github.run_id }}"'
    _, runs = _execute(
        tmp_path,
        f"""
  one:
    permissions: {{}}
    steps:
      - {{uses: actions/cache/restore@1, with: {{{with_inputs}, restore-keys: k-}}}}
      - run: mkdir -p kept; cat kept/file || true; echo $GITHUB_RUN_ID >> kept/file
      - {{uses: actions/cache/save@1, with: {{{with_inputs}}}}}
""",
        runs=3,
    )
    assert "\n1\n2\n" in runs[2].log


def test_artifacts_have_paths_below_their_common_folder_and_no_hidden_files(tmp_path: Path) -> None:
    _, (run,) = _execute(
        tmp_path,
        """
  up:
    permissions: {}
    steps:
      - run: mkdir -p a/b; touch top a/b/one.txt a/b/.hidden a/two.json
      - {uses: actions/upload-artifact@1, with: {name: many, path: "top\\na/*/*.txt", retention-days: 1}}
      - {uses: actions/upload-artifact@1, with: {name: folder, path: a, retention-days: 1}}
      - {uses: actions/upload-artifact@1, with: {name: file, path: a/two.json, retention-days: 1}}
  down:
    needs: up
    permissions: {}
    steps:
      - {uses: actions/download-artifact@1, with: {name: many, path: "${{ runner.temp }}/many"}}
      - {uses: actions/download-artifact@1, with: {name: folder, path: folder}}
      - {uses: actions/download-artifact@1, with: {name: file, path: file}}
      - run: (cd "$RUNNER_TEMP"; find many -type f; cd -; find folder file -type f) | sort
""",
    )
    lines = run.log.splitlines()
    expected = ["file/two.json", "folder/b/one.txt", "folder/two.json", "many/a/b/one.txt", "many/top"]
    assert [line for line in lines if line.startswith(("file/", "folder/", "many/"))] == expected


def test_unknown_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="unknown keys"):
        _execute(tmp_path, "\n  one: {permissions: {}, steps: [{run: 'true', working-directory: src}]}\n")

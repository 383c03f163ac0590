"""`sentiment predict` prints one result per review for any input."""

import shlex
from subprocess import CompletedProcess

import pytest

from tests.inputs.lines import LINES, LinesInput
from tests.project import Project


@pytest.mark.parametrize("case", LINES, ids=lambda case: case.name)
def test_line_is_classified_or_rejected(case: LinesInput, reproduced: Project) -> None:
    status = 0 if case.error is None else 2
    done = _predict(reproduced, case.stdin, case.arguments, status)
    if case.error is not None:
        assert case.error in done.stderr
        assert "Traceback" not in done.stderr
        return
    printed = done.stdout.encode().rstrip(b"\n").split(b"\n")
    assert len(printed) == case.results
    if case.same_scores_as is not None:
        other = _predict(reproduced, case.same_scores_as, (), 0)
        assert done.stdout == other.stdout


def _predict(
    project: Project, stdin: bytes, arguments: tuple[str, ...], status: int
) -> CompletedProcess[str]:
    octal = "".join(f"\\{byte:03o}" for byte in stdin)
    command = f"printf '{octal}' | sentiment predict {shlex.join(arguments)}"
    return project.run("sh", "-c", command, status=status)

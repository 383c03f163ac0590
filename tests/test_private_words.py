"""`.ci/private_words.py`, which `make lint` runs."""

import runpy
import subprocess
from pathlib import Path

import pytest

from tests.project import ROOT

pytestmark = pytest.mark.slow  # it asks git for the files

main = runpy.run_path(str(ROOT / ".ci/private_words.py"))["main"]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/module.py").write_text('"""Nobody reads this.\n\nA health check: who knows?"""\n')
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/picture.png").write_bytes(b"\x89PNG nobody \xff\xfe")
    (tmp_path / "notes.md").write_text("nobody\n")  # outside the folders that are searched
    (tmp_path / ".private-words").write_text("# comment\n\\bnobody\\b\n\\bhealth\\b\n")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    return tmp_path


def test_private_words_are_listed_with_file_and_line(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(repository) == 1
    assert [line.split(": ")[0] for line in capsys.readouterr().err.splitlines()] == [
        "src/module.py:1",
        "src/module.py:3",
    ]


def test_allowed_words_pass(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (repository / ".private-words-allowed").write_text(
        "# comment\nsrc/module.py:nobody:a quotation\nsrc/module.py:health:the name of an endpoint\n"
    )
    assert main(repository) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("allowed", "message"),
    [
        ("src/module.py:nobody\n", "expected path:word:reason"),
        ("".join(f"src/{n}.py:nobody:a quotation\n" for n in range(31)), "31 exceptions, at most 30"),
        (
            "src/module.py:nobody:x\nsrc/module.py:health:x\nsrc/other.py:nobody:x\n",
            "nothing needs 'src/other.py",
        ),
        ("src/other.py:nobody:x\n", "src/module.py:1: private word 'Nobody'"),
    ],
    ids=["no reason", "too many", "unused", "another file"],
)
def test_wrong_exceptions_fail(
    allowed: str, message: str, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (repository / ".private-words-allowed").write_text(allowed)
    assert main(repository) == 1
    assert message in capsys.readouterr().err

"""The branch `models`: its scripts, with git alone."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.project import ROOT

pytestmark = pytest.mark.slow  # git

SCRIPTS = ".github/scripts"
TEXT = b"one\r\ntwo\n"
"""A file whose line ends git would change."""


@dataclass(frozen=True)
class Clones:
    """A bare repository `origin.git` and a clone of it, both below a folder."""

    folder: Path

    @property
    def clone(self) -> Path:
        return self.folder / "clone"

    def git(self, *arguments: str, where: str = "clone") -> str:
        command = ["git", *arguments]
        done = subprocess.run(command, cwd=self.folder / where, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def script(self, name: str, *arguments: str, status: int = 0) -> str:
        """Run a script in the clone and return its output."""
        command = [str(self.clone / SCRIPTS / name), *arguments]
        done = subprocess.run(command, cwd=self.clone, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr
        return done.stdout + done.stderr

    def write(self, name: str, content: bytes) -> Path:
        """Write an object to a new folder in the layout of a DVC remote, and return the folder."""
        folder = self.folder / "packed"
        shutil.rmtree(folder, ignore_errors=True)
        file = folder / "files/md5" / name
        file.parent.mkdir(parents=True)
        file.write_bytes(content)
        return folder

    def copy(self, name: str) -> Path:
        """Return the path of an object in the clone's copy of the branch."""
        return self.clone / ".models/files/md5" / name


@pytest.fixture
def clones(tmp_path: Path) -> Clones:
    clones = Clones(tmp_path)
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", tmp_path / "origin.git"], check=True)
    subprocess.run(["git", "clone", "-q", tmp_path / "origin.git", tmp_path / "clone"], check=True)
    shutil.copytree(ROOT / SCRIPTS, clones.clone / SCRIPTS)
    for name, value in (("user.name", "test"), ("user.email", "test@localhost"), ("core.autocrlf", "true")):
        clones.git("config", name, value)
    clones.git("add", ".")
    clones.git("commit", "-qm", "start")
    clones.git("push", "-q", "origin", "HEAD:main")
    return clones


def test_branch_has_one_commit_with_the_bytes_of_the_folder(clones: Clones) -> None:
    before = clones.git("status", "--porcelain", "--branch")
    clones.script("publish-models.sh", str(clones.write("ab/old", b"old\n")))
    folder = str(clones.write("cd/new", TEXT))
    assert "pushed 1 files" in clones.script("publish-models.sh", folder)
    assert clones.git("rev-list", "--count", "models", where="origin.git") == "1"
    names = clones.git("ls-tree", "-r", "--name-only", "models", where="origin.git").split()
    assert names == [".gitattributes", "files/md5/cd/new"]
    assert clones.git("status", "--porcelain", "--branch") == before
    commit = clones.git("rev-parse", "models", where="origin.git")
    assert "has these models already" in clones.script("publish-models.sh", folder)
    assert clones.git("rev-parse", "models", where="origin.git") == commit

    clones.script("fetch-models.sh")
    assert clones.copy("cd/new").read_bytes() == TEXT


def test_refused_push_is_an_error(clones: Clones) -> None:
    hook = clones.folder / "origin.git/hooks/pre-receive"
    hook.write_text("#!/bin/sh\necho protected >&2\nexit 1\n")
    hook.chmod(0o755)
    output = clones.script("publish-models.sh", str(clones.write("ab/old", b"old\n")), status=1)
    assert "protected" in output
    assert "the branch models was not pushed" in output
    assert "no folder files/md5" in clones.script("publish-models.sh", str(clones.folder), status=1)


def test_setup_without_models_is_quiet(clones: Clones) -> None:
    assert clones.script("fetch-models.sh") == ""
    clones.git("remote", "set-url", "origin", str(clones.folder / "nowhere"))
    assert clones.script("fetch-models.sh") == ""
    shutil.rmtree(clones.clone / ".git")
    assert clones.script("fetch-models.sh") == ""
    assert not (clones.clone / ".models").exists()


def test_newer_models_are_added_to_the_copy(clones: Clones) -> None:
    """What `dvc push` has put there stays."""
    own = clones.copy("ef/own")
    own.parent.mkdir(parents=True)
    own.write_bytes(b"own")
    for name in ("ab/old", "cd/new"):
        clones.script("publish-models.sh", str(clones.write(name, TEXT)))
        assert "fetched the models" in clones.script("fetch-models.sh")
    assert own.read_bytes() == b"own"
    assert clones.copy("cd/new").read_bytes() == TEXT

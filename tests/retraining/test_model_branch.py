import hashlib
import json
import logging
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from sentiment.errors import UserError
from sentiment.retraining.model_branch import CHAMPIONS, pack_models

pytestmark = pytest.mark.slow  # git and DVC

LOCK = """schema: '2.0'
stages:
  evaluate:
    cmd: python -m stages.evaluate
    outs:
    - path: models/selected
      md5: {}
"""


@dataclass(frozen=True)
class Repository:
    """A repository with DVC's configuration, in which the test runs."""

    root: Path

    def git(self, *arguments: str) -> None:
        command = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost", *arguments]
        subprocess.run(command, cwd=self.root, check=True, capture_output=True)

    def train(self, content: str, *, cached: bool = True) -> str:
        """Commit the lock of a model of one file, and return the MD5 of its folder."""
        file = self._add(content.encode(), "", cached=cached)
        listing = json.dumps([{"md5": file, "relpath": "model.safetensors"}])
        folder = self._add(listing.encode(), ".dir", cached=cached)
        (self.root / "dvc.lock").write_text(LOCK.format(folder))
        self.git("add", "dvc.lock")
        self.git("commit", "-qm", content)
        return folder

    def _add(self, content: bytes, suffix: str, *, cached: bool) -> str:
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest() + suffix
        path = self.root / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
        if cached:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return md5

    def promote(self, number: int, verdict: str = "better") -> None:
        self.git("tag", "-a", "-m", "register", f"sentiment@v{number}.0.0")
        self.git("tag", "-a", "-m", f"assign\n\nVerdict: {verdict}", f"sentiment#champion#{number}")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    root = tmp_path / "project"
    (root / ".dvc").mkdir(parents=True)
    (root / ".dvc/config").touch()
    for name in ("params.yaml", "dvc.yaml"):
        (root / name).touch()
    monkeypatch.chdir(root)
    repository = Repository(root)
    repository.git("init", "-q", "-b", "main")
    return repository


def test_last_champions_open_proposals_and_own_model_are_packed(
    repository: Repository, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    champions = []
    for number in range(1, CHAMPIONS + 2):
        champions.append(repository.train(f"champion {number}", cached=number != CHAMPIONS))
        repository.promote(number)
    repository.git("update-ref", "refs/remotes/origin/retrain/merged", "HEAD")
    proposed = repository.train("proposed")
    repository.git("update-ref", "refs/remotes/origin/retrain/open", "HEAD")
    repository.git("reset", "-q", "--hard", "HEAD~1")
    own = repository.train("own")
    with caplog.at_level(logging.WARNING):
        packed = pack_models(tmp_path / "packed")
    assert list(packed.values()) == [own, champions[-1], champions[1], proposed]
    assert f"sentiment@v{CHAMPIONS}.0.0 is neither in DVC's cache nor in .models" in caplog.text
    files = [file for file in (tmp_path / "packed").rglob("*") if file.is_file()]
    assert len(files) == 2 * len(packed)

    # The copy of the branch is a source as well.
    (tmp_path / "packed").rename(repository.root / ".models")
    (repository.root / ".dvc/cache").rename(tmp_path / "lost")
    assert pack_models(tmp_path / "again") == packed


def test_anchor_is_packed_after_many_champions_that_are_no_worse(
    repository: Repository, tmp_path: Path
) -> None:
    models = []
    for number in range(1, CHAMPIONS + 4):
        models.append(repository.train(f"champion {number}"))
        repository.promote(number, "better" if number <= 2 else "no worse")
    anchor = models[1]
    assert list(pack_models(tmp_path / "packed").values()) == [
        models[-1],
        *reversed(models[-CHAMPIONS:]),
        anchor,
    ]


def test_model_that_is_nowhere_is_an_error(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run `dvc repro`"):
        pack_models(tmp_path / "packed")
    repository.train("lost", cached=False)
    with pytest.raises(UserError, match="models/selected is not in DVC's cache"):
        pack_models(tmp_path / "packed")
    assert not (tmp_path / "packed").exists()
    with pytest.raises(UserError, match="the folder has files"):
        pack_models(repository.root)

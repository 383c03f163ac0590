"""Git repositories with an origin on disk, without a pipeline."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Repository:
    """A git repository in its own folder."""

    root: Path

    def git(self, *arguments: str, **environment: str) -> str:
        """Run a git command and return its output."""
        done = subprocess.run(
            ["git", *arguments],
            cwd=self.root,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        return done.stdout.strip()

    def commit(self, content: str) -> str:
        """Commit a file with this content; return the commit."""
        (self.root / "file").write_text(content)
        self.git("add", "file")
        self.git("commit", "-qm", content)
        return self.git("rev-parse", "HEAD")

    def tag(
        self, name: str, commit: str, seconds: int, *, action: str | None = None, previous: str | None = None
    ) -> None:
        """Create an annotated tag at a Unix time; without an action, as GTO creates it."""
        details = f"Reason: because of {name}\nAction: {action}\n" if action else ""
        details += f"Previous: {previous}\n" if previous else ""
        message = f"subject of {name}\n\n{details}"
        self.git("tag", "-a", "-m", message, name, commit, GIT_COMMITTER_DATE=f"@{seconds} +0000")


def make_repository(folder: Path) -> Repository:
    """Return a new repository without origin."""
    folder.mkdir(parents=True)
    repository = Repository(folder)
    repository.git("init", "-q", "-b", "main")
    identify(repository)
    return repository


def identify(repository: Repository) -> None:
    """Set an author."""
    repository.git("config", "user.name", "Ada")
    repository.git("config", "user.email", "ada@localhost")


def add_origin(repository: Repository) -> Path:
    """Push a repository and its tags to a new bare origin; return the origin's folder."""
    origin = repository.root.with_name(f"{repository.root.name}-origin.git")
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(origin)], check=True)
    repository.git("remote", "add", "origin", str(origin))
    repository.git("push", "-q", "origin", "main", "--tags")
    return origin


def clone(origin: Path, folder: Path, *options: str) -> Repository:
    """Clone an origin as git does over a network, so that options such as `--depth` work."""
    subprocess.run(["git", "clone", "-q", *options, origin.as_uri(), str(folder)], check=True)
    identify(Repository(folder))
    return Repository(folder)


def run_gto(*arguments: str) -> None:
    """Run the command `gto` of this environment in the working directory."""
    subprocess.run([Path(sys.executable).with_name("gto"), *arguments], check=True, capture_output=True)

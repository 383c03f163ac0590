"""Files that DVC tracks by `.dvc` files beside them: are they what DVC recorded?

DVC fetches a dependency only where its path is absent. A folder that is always there, such as
`data/incoming`, counts as present whatever it lacks, so that `dvc repro --pull --allow-missing` would read
fewer files than the commit had. So download checks the folder before it reads it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sentiment.copies import PIN
from sentiment.errors import UserError
from sentiment.outputs import replacing
from sentiment.progress import say

if TYPE_CHECKING:
    from dvc.output import Output
    from dvc.repo import Repo


def require_pinned(folder: Path) -> None:
    """Compare everything that the folder's `.dvc` files track with what is there, by DVC's own hashes.

    What is missing is fetched from the DVC cache or remote where they have it. Raises UserError that names
    what is still missing and what has changed, with the commands that mend it.
    """
    pins = sorted(
        pin
        for pin in folder.rglob(f"*{PIN}")
        if pin.is_file() and not any(part.startswith(".") for part in pin.relative_to(folder).parts)
    )
    if not pins:
        return
    with _repository() as repo:
        faults = [fault for pin in pins for out in _outputs(repo, pin) if (fault := _fault(repo, out, pin))]
    if faults:
        raise UserError("\n  ".join([f"{folder}: not what its .dvc files record", *faults]))


def _fault(repo: "Repo", out: "Output", pin: Path) -> str | None:
    status = next(iter(out.workspace_status().values()), None)
    if status is None or (status == "deleted" and _restored(repo, out)):
        return None
    if status == "deleted":
        return f"{out}: missing; `dvc pull {pin}` brings it, from a DVC remote that has it"
    return (
        f"{out}: changed; `dvc commit {pin}` records it as it is now, "
        f"`dvc checkout --force {pin}` brings back what was recorded"
    )


def _restored(repo: "Repo", out: "Output") -> bool:
    """Fetch what is missing, from cache or remote; it is there afterwards whole or not at all."""
    try:
        with replacing(Path(out.fs_path)) as temporary:
            name = repo.dvcfs.from_os_path(str(Path(out.fs_path).relative_to(repo.root_dir)))
            repo.dvcfs.get(f"/{name}", str(temporary), recursive=out.hash_info.isdir)
    except Exception:  # each kind of remote has errors of its own; that it is missing is said by the caller
        return False
    if out.workspace_status():
        raise UserError(f"{out}: what the DVC cache or remote has is not what was recorded")
    say(f"{out}: was missing; fetched from the DVC cache or remote")
    return True


def _outputs(repo: "Repo", pin: Path) -> list["Output"]:
    from dvc.exceptions import DvcException

    try:
        return [out for stage in repo.stage.load_all(str(pin)) for out in stage.outs]
    except DvcException as error:
        raise UserError(f"{pin}: DVC cannot read it: {error}") from None


@contextmanager
def _repository() -> Iterator["Repo"]:
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo  # 0.5 s: only where there is something to check

    try:
        repo = Repo()
    except NotDvcRepoError:
        raise UserError("data/incoming has .dvc files, but this is no DVC repository (`dvc init`)") from None
    with repo:
        yield repo

"""Models that a fresh clone can fetch: the content of the git branch `models`, a DVC remote of its own.

Without a DVC remote, models would be lost with the caches of a CI service. So the branch has the files of the
last champions, of the anchor and of open proposals, in the layout of a DVC remote. `.dvc/config` names its
copy in `.models` as the remote of `models/selected`.
"""

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from sentiment import paths
from sentiment.errors import UserError
from sentiment.files import temporary_folder
from sentiment.registry.state import open_registry
from sentiment.repository import run_git
from sentiment.retraining.model_gate import find_anchor
from sentiment.stage_inputs import parse_lock

logger = logging.getLogger(__name__)

REMOTE = Path(".models")
"""Copy of the branch, which `make setup` makes."""

CHAMPIONS = 3
"""Number of newest champions in the branch: rollbacks return to them."""

PROPOSALS = "refs/remotes/origin/retrain"
"""Branches of the proposals that `retrain.yml` opens."""

MAX_FILE_BYTES = 100 * 1000**2
"""Size of a file above which GitHub refuses a push."""


def pack_models(folder: Path) -> dict[str, str]:
    """Write the models that the branch should have to a folder, in the layout of a DVC remote.

    These are the model of the working tree, the last champions, the anchor, without which the model gate
    cannot decide, and the models of proposals that are neither merged nor deleted. Files come from DVC's
    cache and from the present copy of the branch.

    Args:
        folder: folder to write; it must not exist or be empty.

    Returns:
        For each model the MD5 of its folder, as in `dvc.lock`, by what it is; without those that are lost.

    Raises:
        UserError: the model of the working tree is not in the cache, the folder has files, or git's tags are
            incomplete.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder}: the folder has files; name an empty one, or one that does not exist")
    stores = [_find_cache(), REMOTE]
    own = _read_artifact(paths.LOCK.read_bytes() if paths.LOCK.exists() else None)
    if own is None:
        raise UserError(f"{paths.LOCK} has no {paths.SELECTED}; run `dvc repro`")
    folder.parent.mkdir(parents=True, exist_ok=True)
    packed = {}
    with temporary_folder(folder.with_name(f".{folder.name}.partial")) as temporary:
        for name, artifact in [("this model", own), *_list_other_models()]:
            try:
                _copy_model(artifact, stores, temporary)
            except FileNotFoundError as error:
                if artifact == own:
                    raise UserError(f"{paths.SELECTED} is not in DVC's cache; run `dvc repro`") from None
                logger.warning("%s is neither in DVC's cache nor in %s: %s", name, REMOTE, error)
            else:
                packed[name] = artifact
        folder.mkdir(exist_ok=True)
        (temporary / "files").replace(folder / "files")
    return packed


def _find_cache() -> Path:
    command = [sys.executable, "-m", "dvc", "cache", "dir"]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode != 0:
        raise UserError(f"dvc cache dir failed: {process.stderr.strip()}")
    return Path(process.stdout.strip())


def _list_other_models() -> Iterator[tuple[str, str]]:
    """Yield champions, newest first, anchor and open proposals, each with the MD5 of its folder."""
    registry = open_registry()
    champions, anchor = registry.champions[: -CHAMPIONS - 1 : -1], find_anchor(registry)
    if anchor is not None and anchor not in champions:
        champions.append(anchor)
    for assignment in champions:
        yield from _find_model(assignment.registration.name, assignment.tag.commit)
    listed = run_git("for-each-ref", "--format=%(refname)", "--no-merged=HEAD", PROPOSALS) or b""
    for reference in listed.decode().split():
        yield from _find_model(f"proposal {reference.removeprefix('refs/remotes/')}", reference)


def _find_model(name: str, revision: str) -> Iterator[tuple[str, str]]:
    artifact = _read_artifact(run_git("show", f"{revision}:./{paths.LOCK}"))
    if artifact is None:
        logger.warning("%s: %s of its commit has no %s", name, paths.LOCK, paths.SELECTED)
    else:
        yield name, artifact


def _read_artifact(lock: bytes | None) -> str | None:
    """Return the MD5 of the folder of the selected model in a `dvc.lock`, which ends with `.dir`."""
    for stage in parse_lock((lock or b"").decode(errors="replace")).values():
        for out in stage.get("outs") or []:
            if out.get("path") == paths.SELECTED.as_posix() and out.get("md5"):
                return str(out["md5"])
    return None


def _copy_model(artifact: str, stores: list[Path], target: Path) -> None:
    """Copy the listing of a folder and its files.

    Raises:
        FileNotFoundError: no store has one of them.
    """
    listing = _find_object(artifact, stores)
    entries = json.loads(listing.read_bytes())
    # Find all before any is copied: files of a model that lacks one would be published for nothing.
    found = {artifact: listing, **{entry["md5"]: _find_object(entry["md5"], stores) for entry in entries}}
    for md5, source in found.items():
        copy = target / _locate_object(md5)
        if not copy.exists():  # models share files, such as the tokenizer
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
    for entry in entries:
        if found[entry["md5"]].stat().st_size > MAX_FILE_BYTES:
            logger.warning(
                "%s has more than 100 MB, which GitHub refuses: use a DVC remote", entry["relpath"]
            )


def _find_object(md5: str, stores: list[Path]) -> Path:
    for store in stores:
        if (path := store / _locate_object(md5)).is_file():
            return path
    raise FileNotFoundError(f"no object {md5}")


def _locate_object(md5: str) -> Path:
    """Return the path of an object in a DVC remote or cache."""
    return Path("files", "md5", md5[:2], md5[2:])

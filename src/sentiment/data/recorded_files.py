"""Source files compared with what DVC and `metrics/download.json` recorded of them."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sentiment import paths
from sentiment.data.addresses import expand_pattern, get_scheme, redact_url, to_local_path
from sentiment.data.download_cache import FileRecords, compute_file_record
from sentiment.data.imdb import PACKAGE_FILE, find_package_file
from sentiment.data.review_files import read_files
from sentiment.errors import UserError
from sentiment.files import replacing
from sentiment.params.data import (
    AnySource,
    DownloadParams,
    FilesSource,
    ImdbSource,
    IncomingSource,
    PackageSource,
)
from sentiment.repository import PIN, committed, incoming_files

logger = logging.getLogger(__name__)


if TYPE_CHECKING:
    from dvc.output import Output
    from dvc.repo import Repo


def require_tracked_files(folder: Path) -> None:
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
    with _open_repository() as repo:
        faults = [
            fault
            for pin in pins
            for out in _load_outputs(repo, pin)
            if (fault := _find_problem(repo, out, pin))
        ]
    if faults:
        raise UserError("\n  ".join([f"{folder}: not what its .dvc files record", *faults]))


def _find_problem(repo: "Repo", out: "Output", pin: Path) -> str | None:
    status = next(iter(out.workspace_status().values()), None)
    if status is None or (status == "deleted" and _restore(repo, out)):
        return None
    if status == "deleted":
        return f"{out}: missing; `dvc pull {pin}` brings it, from a DVC remote that has it"
    return (
        f"{out}: changed; `dvc commit {pin}` records it as it is now, "
        f"`dvc checkout --force {pin}` brings back what was recorded"
    )


def _restore(repo: "Repo", out: "Output") -> bool:
    """Fetch what is missing, from cache or remote; it is there afterwards whole or not at all."""
    try:
        with replacing(Path(out.fs_path)) as temporary:
            name = repo.dvcfs.from_os_path(str(Path(out.fs_path).relative_to(repo.root_dir)))
            repo.dvcfs.get(f"/{name}", str(temporary), recursive=out.hash_info.isdir)
    except Exception:  # each kind of remote has errors of its own; that it is missing is said by the caller
        return False
    if out.workspace_status():
        raise UserError(f"{out}: what the DVC cache or remote has is not what was recorded")
    logger.info(f"{out}: was missing; fetched from the DVC cache or remote")
    return True


def _load_outputs(repo: "Repo", pin: Path) -> list["Output"]:
    from dvc.exceptions import DvcException

    try:
        return [out for stage in repo.stage.load_all(str(pin)) for out in stage.outs]
    except DvcException as error:
        raise UserError(f"{pin}: DVC cannot read it: {error}") from None


@contextmanager
def _open_repository() -> Iterator["Repo"]:
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo  # 0.5 s: only where there is something to check

    try:
        repo = Repo()
    except NotDvcRepoError:
        raise UserError("data/incoming has .dvc files, but this is no DVC repository (`dvc init`)") from None
    with repo:
        yield repo


def find_changed_files(params: DownloadParams) -> list[str]:
    """Return a line for every file on this machine that is not the one that download last read.

    Files in `data/incoming` are left to DVC, which re-runs download for them.
    """
    recorded = _parse_file_records(_read_bytes(paths.metrics("download")))
    if not recorded:
        return []
    now = {name: path for source in params.sources for name, path in _list_local_files(source)}
    lines = []
    for name, path in now.items():
        if name not in recorded:
            lines.append(f"{name}: new, download has not read it yet")
        elif not path.is_file():
            lines.append(f"{name}: missing")
        elif path.stat().st_size != recorded[name]["bytes"] or compute_file_record(path) != recorded[name]:
            lines.append(f"{name}: changed since download read it")
    gone = (name for name in recorded if name not in now and _is_missing(name))
    return lines + [f"{name}: missing" for name in gone]


def warn_about_changed_files(params: DownloadParams) -> None:
    """Print which files on this machine are not those that download last read, and what reads them anew."""
    changed = find_changed_files(params)
    for line in changed:
        logger.warning(f"{line}")
    if changed:
        logger.info(
            "DVC sees no change of files outside data/incoming; to read them anew: "
            "`dvc repro --force --single-item download`, then `dvc repro`"
        )


def warn_about_different_files(read: FileRecords) -> None:
    """Say which files are not those that the commit's `metrics/download.json` records.

    So an old commit does not quietly read today's files.
    """
    before = committed(paths.metrics("download").as_posix()) or b""
    for name, recorded in _parse_file_records(before).items():
        if name in read and read[name] != recorded:
            logger.info(
                f"{name}: not the file that this commit recorded "
                f"(md5 {recorded.get('md5')}, now {read[name]['md5']})"
            )


def _list_local_files(source: AnySource) -> Iterator[tuple[str, Path]]:
    """Yield name and path of a source's files on this machine, but those in `data/incoming`."""
    match source:
        case PackageSource():
            yield PACKAGE_FILE, find_package_file()
        case ImdbSource():
            here = [path for url in source.urls if (path := to_local_path(url)) is not None]
            if len(here) == len(source.urls) or any(path.is_file() for path in here):
                yield redact_url(source.urls[0]), next((path for path in here if path.is_file()), here[0])
        case IncomingSource():
            return
        case FilesSource():
            for address in source.paths:
                if to_local_path(address) is None:
                    continue
                try:
                    found = expand_pattern(address)
                except UserError:  # matches nothing now: what it matched is missing
                    continue
                for name in found:
                    path = to_local_path(name)
                    if path is not None:
                        yield redact_url(name), path


def _is_missing(name: str) -> bool:
    if name == PACKAGE_FILE or get_scheme(name) not in ("", "file") or name.startswith(f"{paths.INCOMING}/"):
        return False
    path = to_local_path(name)
    return path is not None and not path.is_file()


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _parse_file_records(content: bytes) -> dict[str, Any]:
    try:
        files = json.loads(content)["files"]
    except (ValueError, KeyError, TypeError):
        return {}
    return {name: entry for name, entry in files.items() if isinstance(entry, dict)}


def read_incoming(source: IncomingSource) -> Iterator[pa.RecordBatch]:
    """Yield the reviews of every file in `data/incoming` that the source's patterns match; no split.

    Raises UserError where a file is not what its `.dvc` file records, or cannot be read.
    """
    require_tracked_files(paths.INCOMING)
    matched = [
        name for name in incoming_files() if any(fnmatchcase(name, pattern) for pattern in source.paths)
    ]
    for name in matched:
        yield from read_files(source.model_copy(update={"paths": (name,)}))

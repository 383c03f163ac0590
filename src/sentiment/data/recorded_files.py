"""Comparison of source files with the hashes in `.dvc` files and in `metrics/download.json`."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentiment import paths
from sentiment.data.download_cache import FileRecords, compute_file_record
from sentiment.data.imdb import PACKAGE_FILE, find_package_file
from sentiment.data.locations import expand_pattern, get_scheme, redact_url, to_local_path
from sentiment.errors import UserError
from sentiment.files import atomic_write
from sentiment.params.data import DownloadParams
from sentiment.params.sources import AnySource, FilesSource, ImdbSource, IncomingSource, PackageSource
from sentiment.repository import DVC_SUFFIX, read_committed

logger = logging.getLogger(__name__)


if TYPE_CHECKING:
    from dvc.output import Output
    from dvc.repo import Repo


def require_tracked_files(folder: Path) -> None:
    """Compare the files that the `.dvc` files in a folder track with their recorded hashes.

    Missing files are fetched from the DVC cache or remote.

    Raises:
        UserError: files are missing or changed. The message lists them with the commands that restore or
            record them.
    """
    dvc_files = sorted(
        dvc_file
        for dvc_file in folder.rglob(f"*{DVC_SUFFIX}")
        if dvc_file.is_file() and not any(part.startswith(".") for part in dvc_file.relative_to(folder).parts)
    )
    if not dvc_files:
        return
    with _open_repository() as repo:
        problems = [
            problem
            for dvc_file in dvc_files
            for out in _load_outputs(repo, dvc_file)
            if (problem := _find_problem(repo, out, dvc_file))
        ]
    if problems:
        raise UserError("\n  ".join([f"{folder}: files differ from its .dvc files", *problems]))


def _find_problem(repo: "Repo", out: "Output", dvc_file: Path) -> str | None:
    """Describe how a file differs from its `.dvc` file; None if it does not differ or was fetched."""
    status = next(iter(out.workspace_status().values()), None)
    if status is None or (status == "deleted" and _fetch_missing(repo, out)):
        return None
    if status == "deleted":
        return f"{out}: missing; fetch it from a DVC remote with `dvc pull {dvc_file}`"
    return (
        f"{out}: changed; record the change with `dvc commit {dvc_file}`, "
        f"or restore the recorded file with `dvc checkout --force {dvc_file}`"
    )


def _fetch_missing(repo: "Repo", out: "Output") -> bool:
    """Fetch a missing file or folder from the cache or a remote. Return whether that succeeded."""
    try:
        with atomic_write(Path(out.fs_path)) as temporary:
            name = repo.dvcfs.from_os_path(str(Path(out.fs_path).relative_to(repo.root_dir)))
            repo.dvcfs.get(f"/{name}", str(temporary), recursive=out.hash_info.isdir)
    except Exception:  # each type of remote raises its own; the caller reports that the file is missing
        return False
    if out.workspace_status():
        raise UserError(f"{out}: the file in the DVC cache or remote does not have the recorded hash")
    logger.info(f"{out}: was missing; fetched from the DVC cache or remote")
    return True


def _load_outputs(repo: "Repo", dvc_file: Path) -> list["Output"]:
    from dvc.exceptions import DvcException

    try:
        return [out for stage in repo.stage.load_all(str(dvc_file)) for out in stage.outs]
    except DvcException as error:
        raise UserError(f"{dvc_file}: DVC cannot read the file: {error}") from None


@contextmanager
def _open_repository() -> Iterator["Repo"]:
    """Open the DVC repository. Raises UserError if there is none."""
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo  # takes 0.5 s, so imported only if there is a file to check

    try:
        repo = Repo()
    except NotDvcRepoError:
        raise UserError(
            "data/incoming has .dvc files, but this is not a DVC repository; run `dvc init`"
        ) from None
    with repo:
        yield repo


def find_changed_files(params: DownloadParams) -> list[str]:
    """Return a message for every local file that changed since the download stage read it.

    Files in `data/incoming` are not included, because DVC detects their changes. If the record is missing,
    all files may have changed: DVC deletes it before it runs the stage, which may fail.
    """
    current = {name: path for source in params.sources for name, path in _list_local_files(source)}
    if current.keys() - {PACKAGE_FILE} and not paths.metrics("download").exists():
        return [
            f"{paths.metrics('download')}: missing, for example since download failed; DVC may restore the "
            "reviews of an earlier run, although the source files have changed"
        ]
    recorded = _parse_file_records(_read_bytes(paths.metrics("download")))
    if not recorded:
        return []
    lines = []
    for name, path in current.items():
        if name not in recorded:
            lines.append(f"{name}: new, not read by download yet")
        elif not path.is_file():
            lines.append(f"{name}: missing")
        elif path.stat().st_size != recorded[name]["bytes"] or compute_file_record(path) != recorded[name]:
            lines.append(f"{name}: changed since download read it")
    missing = (name for name in recorded if name not in current and _is_missing_local_file(name))
    return lines + [f"{name}: missing" for name in missing]


def warn_about_changed_files(params: DownloadParams) -> None:
    """Log a warning for every local file that changed since download read it, and how to read it again."""
    changed = find_changed_files(params)
    for line in changed:
        logger.warning(line)
    if changed:
        logger.warning(
            "DVC does not detect changes of files outside data/incoming; to read them again, run "
            "`dvc repro --force --single-item download` and then `dvc repro`"
        )


def warn_about_different_files(read: FileRecords) -> None:
    """Log a warning for each file that differs from those in `metrics/download.json` of the current commit.

    A stage that runs at an old commit may read newer files than those that the commit recorded.
    """
    committed = read_committed(paths.metrics("download").as_posix()) or b""
    for name, recorded in _parse_file_records(committed).items():
        if name in read and read[name] != recorded:
            logger.warning(
                f"{name}: not the file that this commit recorded "
                f"(md5 {recorded.get('md5')}, now {read[name]['md5']})"
            )


def _list_local_files(source: AnySource) -> Iterator[tuple[str, Path]]:
    """Yield name and path of the local files of a source, except those in `data/incoming`."""
    match source:
        case PackageSource():
            yield PACKAGE_FILE, find_package_file()
        case ImdbSource():
            local_paths = [path for url in source.urls if (path := to_local_path(url)) is not None]
            if len(local_paths) == len(source.urls) or any(path.is_file() for path in local_paths):
                yield (
                    redact_url(source.urls[0]),
                    next((path for path in local_paths if path.is_file()), local_paths[0]),
                )
        case IncomingSource():
            return
        case FilesSource():
            for location in source.paths:
                if to_local_path(location) is None:
                    continue
                try:
                    names = expand_pattern(location)
                except UserError:  # no match now; files that matched before are reported as missing
                    continue
                for name in names:
                    path = to_local_path(name)
                    if path is not None:
                        yield redact_url(name), path


def _is_missing_local_file(name: str) -> bool:
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

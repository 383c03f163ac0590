"""The files that the reviews came from, as `metrics/download.json` records them, against those of today.

DVC sees what changes in `data/incoming`. Of files elsewhere it sees only the path in params.yaml: it does not
re-run download when their content changes.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sentiment import paths
from sentiment.errors import UserError
from sentiment.git import committed
from sentiment.params.data import (
    AnySource,
    DownloadParams,
    FilesSource,
    ImdbSource,
    IncomingSource,
    PackageSource,
)
from sentiment.progress import say
from sentiment.reviews.fetching import matching, shown
from sentiment.reviews.fetching.addresses import local_path, scheme_of
from sentiment.reviews.fetching.digests import Digests, digest
from sentiment.reviews.fetching.installed import PACKAGE_FILE, package_file


def changed_files(params: DownloadParams) -> list[str]:
    """Return a line for every file on this machine that is not the one that download last read.

    Files in `data/incoming` are left to DVC, which re-runs download for them.
    """
    recorded = _digests_in(_content(paths.metrics("download")))
    if not recorded:
        return []
    now = {name: path for source in params.sources for name, path in _local_files(source)}
    lines = []
    for name, path in now.items():
        if name not in recorded:
            lines.append(f"{name}: new, download has not read it yet")
        elif not path.is_file():
            lines.append(f"{name}: missing")
        elif path.stat().st_size != recorded[name]["bytes"] or digest(path) != recorded[name]:
            lines.append(f"{name}: changed since download read it")
    gone = (name for name in recorded if name not in now and _is_lost(name))
    return lines + [f"{name}: missing" for name in gone]


def warn_of_changed_files(params: DownloadParams) -> None:
    """Print which files on this machine are not those that download last read, and what reads them anew."""
    changed = changed_files(params)
    for line in changed:
        say(f"warning: {line}")
    if changed:
        say(
            "DVC sees no change of files outside data/incoming; to read them anew: "
            "`dvc repro --force --single-item download`, then `dvc repro`"
        )


def warn_of_other_files(read: Digests) -> None:
    """Say which files are not those that the commit's `metrics/download.json` records.

    So an old commit does not quietly read today's files.
    """
    before = committed(paths.metrics("download").as_posix()) or b""
    for name, recorded in _digests_in(before).items():
        if name in read and read[name] != recorded:
            say(
                f"{name}: not the file that this commit recorded "
                f"(md5 {recorded.get('md5')}, now {read[name]['md5']})"
            )


def _local_files(source: AnySource) -> Iterator[tuple[str, Path]]:
    """Yield name and path of a source's files on this machine, but those in `data/incoming`."""
    match source:
        case PackageSource():
            yield PACKAGE_FILE, package_file()
        case ImdbSource():
            here = [path for url in source.urls if (path := local_path(url)) is not None]
            if len(here) == len(source.urls) or any(path.is_file() for path in here):
                yield shown(source.urls[0]), next((path for path in here if path.is_file()), here[0])
        case IncomingSource():
            return
        case FilesSource():
            for address in source.paths:
                if local_path(address) is None:
                    continue
                try:
                    found = matching(address)
                except UserError:  # matches nothing now: what it matched is missing
                    continue
                for name in found:
                    path = local_path(name)
                    if path is not None:
                        yield shown(name), path


def _is_lost(name: str) -> bool:
    if name == PACKAGE_FILE or scheme_of(name) not in ("", "file") or name.startswith(f"{paths.INCOMING}/"):
        return False
    path = local_path(name)
    return path is not None and not path.is_file()


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _digests_in(content: bytes) -> dict[str, Any]:
    try:
        files = json.loads(content)["files"]
    except (ValueError, KeyError, TypeError):
        return {}
    return {name: entry for name, entry in files.items() if isinstance(entry, dict)}

"""Files in `data/incoming`: which source each belongs to, and their reviews."""

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase

import pyarrow as pa

from sentiment import paths
from sentiment.data.recorded_files import require_tracked_files
from sentiment.data.review_files import read_files
from sentiment.errors import UserError
from sentiment.params.sources import AnySource, IncomingSource
from sentiment.repository import list_incoming_files

logger = logging.getLogger(__name__)

WILDCARD = re.compile(r"[*?[]")


def read_incoming(source: IncomingSource, sources: Sequence[AnySource]) -> Iterator[pa.RecordBatch]:
    """Yield the reviews of all files in `data/incoming` that belong to a source, without split.

    Args:
        source: source to read.
        sources: all sources, since a file belongs to one of them.

    Raises:
        UserError: a file differs from its `.dvc` file, belongs to two sources, or cannot be read.
    """
    require_tracked_files(paths.INCOMING)
    for name in assign_incoming_files(sources)[source.name]:
        yield from read_files(source.model_copy(update={"paths": (name,)}))


def assign_incoming_files(sources: Sequence[AnySource]) -> dict[str, list[str]]:
    """Return the files in `data/incoming` by the name of the source that they belong to.

    A file belongs to the source with the most specific pattern that matches it, which is the one with the
    longest text before its first wildcard: `data/incoming/tweets/*` rather than `data/incoming/*`.

    Raises:
        UserError: two sources match a file, and neither has a more specific pattern.
    """
    incoming = [source for source in sources if isinstance(source, IncomingSource)]
    files: dict[str, list[str]] = {source.name: [] for source in incoming}
    for name in list_incoming_files():
        matches = {source.name: length for source in incoming if (length := _measure_match(source, name))}
        owners = [owner for owner, length in matches.items() if length == max(matches.values())]
        if len(owners) > 1:
            raise UserError(
                f"{name}: belongs to the sources {' and '.join(owners)}, whose paths match it and are "
                "equally specific; its reviews would count twice"
            )
        if owners:
            files[owners[0]].append(name)
    return files


def warn_about_unread_files(read: Iterable[str]) -> None:
    """Log a warning for each file in `data/incoming` that is not read, since no source matches it.

    Args:
        read: locations that are read.
    """
    for name in sorted({*list_incoming_files()} - {*read}):
        logger.warning("%s: not read, since no path of a source of kind incoming matches it", name)


def _measure_match(source: IncomingSource, name: str) -> int:
    """Return the length of the most specific pattern of a source before its first wildcard; 0: no match."""
    matches = [pattern for pattern in source.paths if fnmatchcase(name, pattern)]
    return max((len(WILDCARD.split(pattern, maxsplit=1)[0]) for pattern in matches), default=0)

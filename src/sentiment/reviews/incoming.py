"""Labelled files in `data/incoming`: put there by hand, by `dvc add` or by `dvc import-url`."""

from collections.abc import Iterator
from fnmatch import fnmatchcase

import pyarrow as pa

from sentiment import paths
from sentiment.copies import incoming_files
from sentiment.params.data import IncomingSource
from sentiment.reviews.files import read_files
from sentiment.reviews.pins import require_pinned


def read_incoming(source: IncomingSource) -> Iterator[pa.RecordBatch]:
    """Yield the reviews of every file in `data/incoming` that the source's patterns match; no split.

    Raises UserError where a file is not what its `.dvc` file records, or cannot be read.
    """
    require_pinned(paths.INCOMING)
    matched = [
        name for name in incoming_files() if any(fnmatchcase(name, pattern) for pattern in source.paths)
    ]
    for name in matched:
        yield from read_files(source.model_copy(update={"paths": (name,)}))

"""Every kind of source as one stream of reviews, each with its split."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from sentiment import paths
from sentiment.params.data import (
    AnySource,
    DownloadParams,
    FilesSource,
    ImdbSource,
    IncomingSource,
    PackageSource,
)
from sentiment.reviews.fetching import fetch
from sentiment.reviews.files import read_files
from sentiment.reviews.imdb import read_imdb
from sentiment.reviews.incoming import read_incoming
from sentiment.reviews.membership import all_to_train, split_by_hash, validation_from_train
from sentiment.reviews.package import read_package
from sentiment.reviews.pins import require_pinned
from sentiment.reviews.rows import SCHEMA, batches_of, limited
from sentiment.reviews.splitting import split_in_blocks


def read_source(source: AnySource, params: DownloadParams) -> Iterator[pa.RecordBatch]:
    """Yield a source's reviews in batches of `rows.SCHEMA`, each review in a split.

    What split a review is in does not depend on the other sources.
    Raises UserError where the source cannot be reached or read.
    """
    match source:
        case PackageSource():
            batches = _in_blocks(params)
        case ImdbSource():
            path = fetch(source.urls, source.checksum)
            archive = limited(lambda: read_imdb(path, source.limits), params.limit, params.seed)
            batches = validation_from_train(archive, params.split, params.seed)
        case IncomingSource():
            rows = limited(lambda: read_incoming(source), params.limit, params.seed)
            batches = split_by_hash(rows, params.split, params.seed)
        case FilesSource():
            if any(paths.INCOMING in Path(path).parents for path in source.paths):
                require_pinned(paths.INCOMING)
            rows = limited(lambda: read_files(source), params.limit, params.seed)
            batches = split_by_hash(rows, params.split, params.seed)
    return all_to_train(batches) if source.role == "train" else batches


def _in_blocks(params: DownloadParams) -> Iterator[pa.RecordBatch]:
    whole = read_package()
    taken = pa.Table.from_batches(limited(lambda: batches_of(whole), params.limit, params.seed), SCHEMA)
    splits = split_in_blocks(taken["label"], params.split, params.seed)
    yield from batches_of(taken.set_column(SCHEMA.get_field_index("split"), "split", splits))

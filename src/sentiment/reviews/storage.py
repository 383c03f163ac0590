"""Reviews on disk, as Parquet."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sentiment.errors import UserError
from sentiment.outputs import replacing

SCHEMA = pa.schema([("text", pa.string()), ("label", pa.int8())])


def write_reviews(path: Path, reviews: pa.Table) -> None:
    """Write one split; equal reviews make equal bytes."""
    with replacing(path) as temporary:
        pq.write_table(reviews.cast(SCHEMA), temporary, compression="zstd")


def read_reviews(path: Path) -> pa.Table:
    """Read one split, with columns text (string) and label (int8).

    Raises UserError where the file is missing, torn, has other columns, no rows, or one class only.
    """
    try:
        reviews = pq.read_table(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `dvc repro` or `dvc pull` makes it") from None
    except (pa.ArrowInvalid, pa.ArrowIOError) as error:
        raise UserError(f"{path}: not a whole Parquet file: {error}") from None
    if not reviews.schema.equals(SCHEMA):
        found = ", ".join(f"{field.name} ({field.type})" for field in reviews.schema)
        raise UserError(f"{path}: expected the columns text (string) and label (int8), found {found}")
    if reviews.num_rows == 0:
        raise UserError(f"{path}: no reviews in it")
    labels = sorted(reviews["label"].unique().to_pylist())
    if labels != [0, 1]:
        raise UserError(f"{path}: expected reviews with labels 0 and 1, found {labels} alone")
    return reviews

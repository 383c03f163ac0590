"""Text as the authors meant it, each review once."""

import re

import pyarrow as pa

from sentiment.errors import UserError

_LINE_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)


def normalized(text: str) -> str:
    """Return text without HTML line breaks and with each run of white space as one space."""
    return " ".join(_LINE_BREAK.sub(" ", text).split())


def deduplicated(reviews: pa.Table) -> tuple[pa.Table, int]:
    """Normalize every text and keep the first of those that are then equal.

    reviews: columns text and label. Returns the table and the number of rows dropped.
    Raises UserError where a review is empty or a label is neither 0 nor 1, naming up to ten rows.
    """
    texts = [normalized(text or "") for text in reviews["text"].to_pylist()]
    labels = reviews["label"].to_pylist()
    _refuse([row for row, text in enumerate(texts) if not text], "has no text")
    _refuse(
        [row for row, label in enumerate(labels) if label not in (0, 1)],
        "has a label that is neither 0 nor 1",
    )
    first_row: dict[str, int] = {}
    for row, text in enumerate(texts):
        first_row.setdefault(text, row)
    kept = pa.table(
        {"text": list(first_row), "label": pa.array([labels[r] for r in first_row.values()], pa.int8())}
    )
    return kept, len(texts) - len(first_row)


def _refuse(rows: list[int], fault: str) -> None:
    if rows:
        named = ", ".join(str(row) for row in rows[:10])
        raise UserError(f"reviews: {len(rows)} row(s) where the review {fault}: {named}")

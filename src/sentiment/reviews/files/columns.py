"""What every format shares: the columns that are wanted, and how a message repeats what a file says."""

from collections.abc import Sequence

from sentiment.errors import UserError
from sentiment.params.data import Columns

Cells = tuple[list[str | None], list[str | None], list[str | None]]
"""Texts, labels and groups of some rows; labels and groups in their canonical text."""

CHARACTERS_PER_BATCH = 1 << 25
"""A batch of real reviews has 3 million characters; one of huge texts ends here."""

LONGEST_QUOTE = 200
"""Characters of a file that a message repeats: the first line of a page can be all of it."""


def wanted_columns(columns: Columns) -> list[str]:
    """Return the names of the columns to read, each once."""
    names = (columns.text, columns.label, columns.group)
    return list(dict.fromkeys(name for name in names if name is not None))


def require_columns(where: str, wanted: Sequence[str], found: Sequence[str]) -> None:
    """Raise UserError where a wanted column is missing or there more than once."""
    missing = [name for name in wanted if name not in found]
    if missing:
        raise UserError(f"{where}: no column {', '.join(missing)}; columns found: {brief(', '.join(found))}")
    double = [name for name in wanted if found.count(name) > 1]
    if double:
        raise UserError(
            f"{where}: more than one column {', '.join(double)}; columns found: {brief(', '.join(found))}"
        )


def brief(text: str) -> str:
    """Return the beginning of what a file says, fit for a terminal."""
    first = text.partition("\n")[0][:LONGEST_QUOTE]
    return "".join(character if character.isprintable() else "\ufffd" for character in first)

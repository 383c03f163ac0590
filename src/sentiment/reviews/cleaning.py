"""Text as the authors meant it."""

import re

_LINE_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)


def normalized(text: str) -> str:
    """Return text without HTML line breaks and with each run of white space as one space."""
    return " ".join(_LINE_BREAK.sub(" ", text).split())

"""Inputs of `sentiment predict` and the reviews that they contain."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LinesInput:
    """Standard input or arguments of `sentiment predict`."""

    name: str
    rule: str
    stdin: bytes = b""
    arguments: tuple[str, ...] = ()
    results: int | None = None
    """Lines that must be printed, one a review."""
    same_scores_as: bytes | None = None
    """Standard input that must be scored alike."""
    error: str | None = None
    """Part of the message, with status 2."""


LINES = (
    LinesInput(
        "a form feed and a next-line mark inside a line",
        "POSIX 3.206: a line ends with a newline",
        b"A fine\x0cfilm\nA waste\xc2\x85of time\n",
        results=2,
    ),
    LinesInput(
        "lines that end with carriage return and newline",
        "RFC 2046, 4.1.1",
        b"A fine film\r\nA waste of time\r\n",
        results=2,
        same_scores_as=b"A fine film\nA waste of time\n",
    ),
    LinesInput(
        "no newline at the end",
        "POSIX 3.195: an incomplete line",
        b"A fine film\nA waste of time",
        results=2,
        same_scores_as=b"A fine film\nA waste of time\n",
    ),
    LinesInput(
        "a byte-order mark",
        "RFC 3629, 6",
        b"\xef\xbb\xbfA fine film\n",
        results=1,
        same_scores_as=b"A fine film\n",
    ),
    LinesInput(
        "not UTF-8 in the third line",
        "RFC 3629, 3",
        b"A fine film\nA waste of time\nCaf\xe9\n",
        error="line 3",
    ),
    LinesInput(
        "a line break inside an argument",
        "one result a review",
        arguments=("A fine\nfilm", "A waste of time"),
        results=2,
    ),
)

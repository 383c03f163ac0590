"""Keys of reviews, and the list of those that must not be learned from."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from sentiment import paths
from sentiment.cli import app
from sentiment.data.deduplication import compute_fingerprints
from sentiment.data.removal import RemovalList, compute_keys
from sentiment.errors import UserError
from tests.project import ROOT


def test_key_is_the_fingerprint_of_the_normalized_text() -> None:
    assert compute_keys(["Good film."]) == [f"{compute_fingerprints(['Good film.'])[0]:016x}"]
    assert len(set(compute_keys(["Good film.", " GOOD<br />film. ", "Good\u200bfilm."]))) == 1
    assert compute_keys(["Good film."]) != compute_keys(["Good films."])


def test_command_prints_a_key_per_text_or_line() -> None:
    expected = "".join(f"{key}\n" for key in compute_keys(["Good film.", "Bad film."]))
    arguments = CliRunner().invoke(app, ["key", "Good film.", "Bad film."])
    lines = CliRunner().invoke(app, ["key"], input="Good film.\nBad film.\n")
    assert arguments.output == lines.output == expected


def test_comments_and_empty_lines_are_ignored() -> None:
    content = b"\xef\xbb\xbf# header\r\n\r\n00000000000000ff  # twice\r\n00000000000000ff\n0123456789abcdef"
    assert RemovalList.parse(content, Path("removed.txt")).fingerprints.tolist() == [0xFF, 0x0123456789ABCDEF]
    assert not RemovalList.load(Path("no such file")).contains(["Good film."]).any()


@pytest.mark.parametrize("line", ["Good film.", "0123", "0123456789ABCDEF", "0123456789abcdef,1", "\xff"])
def test_invalid_line_is_named(line: str) -> None:
    with pytest.raises(UserError, match=r"^removed\.txt line 2: expected the key of a review, 16 digits"):
        RemovalList.parse(f"# one\n{line}\n".encode("latin-1"), Path("removed.txt"))


def test_committed_list_is_valid_and_explains_itself() -> None:
    assert not len(RemovalList.load(ROOT / paths.REMOVED).fingerprints)
    assert "sentiment key" in (ROOT / paths.REMOVED).read_text()


def test_listed_texts_are_found() -> None:
    listed = RemovalList(np.sort(compute_fingerprints(["Good film.", "Bad film."])))
    assert listed.contains(["A film.", "good film."]).tolist() == [False, True]

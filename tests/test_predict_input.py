"""Reading windows of lines from a stream that delivers arbitrary chunks."""

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing

import pytest

from sentiment import input_lines
from sentiment.errors import UserError
from sentiment.input_lines import WINDOW_LINES, read_windows


def _pipe(*chunks: bytes, wait_s: float = 0.0, stay_open: threading.Event | None = None) -> int:
    """Return the read end of a pipe that a thread writes to."""
    reading, writing = os.pipe()

    def write() -> None:
        with os.fdopen(writing, "wb", buffering=0) as pipe:
            for chunk in chunks:
                rest = chunk
                while rest:
                    rest = rest[pipe.write(rest) or 0 :]
                time.sleep(wait_s)
            if stay_open is not None:
                stay_open.wait(30)

    threading.Thread(target=write, daemon=True).start()
    return reading


def _all(windows: Iterator[Sequence[str]]) -> list[str]:
    return [line for window in windows for line in window]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a\nb\n", ["a", "b"]),
        ("a\r\nb\r\n", ["a", "b"]),
        ("a\nb", ["a", "b"]),
        ("a\n\n\nb\n\n", ["a", "", "", "b", ""]),
        ("", []),
        ("\n", [""]),
        ("a\rb\r\n\r\n", ["a\rb", ""]),
        ("a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\n", ["a\u2028b\u2029c\x85d\x0be\x0cf\x1cg"]),
        ("\ufeffa\nb\n", ["a", "b"]),
        ("a\n\ufeffb\n", ["a", "b"]),
        ("a\ufeffb\n", ["a\ufeffb"]),
        ("a\0b\n", ["a\0b"]),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_only_newlines_end_lines_whatever_the_chunks(content: str, expected: list[str], size: int) -> None:
    encoded = content.encode()
    chunks = [encoded[start : start + size] for start in range(0, len(encoded), size)]
    assert _all(read_windows(_pipe(*chunks))) == expected


def test_line_that_is_not_utf8_is_named_after_the_lines_before_it() -> None:
    windows = read_windows(_pipe(b"a\nb\nc\xe9\nd\n"))
    assert next(windows) == ["a", "b"]
    with pytest.raises(UserError, match=r"not UTF-8 text in line 3 .* at byte 2 of the line"):
        next(windows)


def test_pause_yields_the_lines_read_so_far() -> None:
    hold = threading.Event()
    windows = read_windows(_pipe(b"a\nb\nbegun", stay_open=hold))
    start = time.monotonic()
    with closing(windows):
        assert next(windows) == ["a", "b"]
        assert time.monotonic() - start < 5
    hold.set()


def test_slow_input_without_a_pause_is_yielded_before_its_window_is_full() -> None:
    slow = [b"a\n"] * 150
    windows = list(read_windows(_pipe(*slow, wait_s=0.01)))
    assert sum(map(len, windows)) == 150
    assert len(windows) > 1


def test_windows_are_bounded_in_lines_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_lines, "WINDOW_BYTES", 5_000)
    content = b"".join(b"%d\n" % number for number in range(5_000)) + (b"x" * 999 + b"\n") * 20
    windows = list(read_windows(_pipe(content)))
    assert sum(map(len, windows)) == 5_020
    assert max(map(len, windows)) <= WINDOW_LINES
    assert max(sum(map(len, window)) for window in windows) < 5_000 + 999


@pytest.mark.parametrize("ending", [b"", b"\n"])
def test_too_long_line_is_refused_before_it_fills_the_memory(
    ending: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(input_lines, "LONGEST_LINE", 200_000)
    assert _all(read_windows(_pipe(b"x" * 200_000 + ending))) == ["x" * 200_000]
    windows = read_windows(_pipe(b"a\n" + b"x" * 200_001 + ending))
    assert next(windows) == ["a"]
    with pytest.raises(UserError, match=r"line 2 is longer than 200,000 bytes"):
        next(windows)

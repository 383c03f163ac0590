"""Lines of standard input in windows, which end when they are full or when the input pauses."""

import os
import select
import time
from collections.abc import Iterator

from sentiment.errors import UserError

WINDOW_LINES = 1024
"""Lines per window: 16 batches, which are formed by length so that they contain little padding."""

WINDOW_BYTES = 4_000_000
"""Bytes at which a window is full even with fewer lines."""

LONGEST_LINE = 10_000_000
"""Maximum bytes of a line, which bounds the memory; 700 times the longest review of the IMDb dataset."""

PAUSE_S = 0.05
"""Seconds without input after which a partial window is scored: the writer may be waiting for it."""

MAX_WAIT_S = 0.5
"""Maximum seconds that a line waits for its window to fill while input arrives slowly."""

READ_BYTES = 1 << 16

BYTE_ORDER_MARK = "\ufeff"


def read_windows(descriptor: int) -> Iterator[list[str]]:
    r"""Yield the lines of a stream in windows. A window ends if it is full, the input pauses or ends.

    Only `\n` and `\r\n` end a line; the last line may have no end. A byte-order mark at the start of a
    line, as in concatenated files, is removed.

    Args:
        descriptor: file descriptor of the stream. It is read without Python's buffer, which would wait for
            more input.

    Yields:
        Lists of at least one line, in the order of the stream.

    Raises:
        UserError: the stream cannot be read, or a line is not UTF-8 or longer than LONGEST_LINE. All lines
            before it have been yielded then.
    """
    lines = _LineSplitter(descriptor)
    number = 0
    while window := lines.next_window():
        decoded: list[str] = []
        for line in window:
            number += 1
            try:
                decoded.append(line.decode("utf-8").removeprefix(BYTE_ORDER_MARK))
            except UnicodeDecodeError as error:
                if decoded:
                    yield decoded
                where = f"({error.reason} at byte {error.start + 1} of the line)"
                raise UserError(f"standard input: not UTF-8 text in line {number} {where}") from None
        yield decoded
    if lines.too_long:
        raise UserError(f"standard input: line {number + 1} is longer than {LONGEST_LINE:,} bytes")


class _LineSplitter:
    """Splits the bytes of a stream into lines."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.complete: list[bytes] = []
        self.incomplete: list[bytes] = []
        """Parts of the last line, whose end has not been read yet."""
        self.incomplete_bytes = 0
        self.ended = False
        self.too_long = False

    def next_window(self) -> list[bytes]:
        """Wait for lines and return at least one; return an empty list at the end of the stream."""
        oldest: float | None = time.monotonic() if self.complete else None
        while not (self.ended or self._is_full()):
            if not self._is_ready(oldest):
                break
            self._read()
            if self.complete and oldest is None:
                oldest = time.monotonic()
        return self._take_window()

    def _is_full(self) -> bool:
        return len(self.complete) >= WINDOW_LINES or sum(map(len, self.complete)) >= WINDOW_BYTES

    def _is_ready(self, oldest: float | None) -> bool:
        """Wait for input, with a time limit if there is a line to return; return whether there is input.

        Args:
            oldest: time at which the window's first line was read; None if there is no line yet.
        """
        timeout = None
        if oldest is not None:
            timeout = max(0.0, min(PAUSE_S, oldest + MAX_WAIT_S - time.monotonic()))
        return bool(select.select([self.descriptor], [], [], timeout)[0])

    def _read(self) -> None:
        """Read the bytes that are available, and split them into lines."""
        try:
            chunk = os.read(self.descriptor, READ_BYTES)
        except OSError as error:
            raise UserError(f"standard input: {error.strerror}") from None
        first, *others = chunk.split(b"\n")
        self.incomplete.append(first)
        self.incomplete_bytes += len(first)
        if self.incomplete_bytes > LONGEST_LINE:
            self.ended = self.too_long = True
        elif others:
            *complete, last = others
            lines = [b"".join(self.incomplete), *complete]
            self.complete += [line.removesuffix(b"\r") for line in lines]
            self.incomplete, self.incomplete_bytes = [last], len(last)
        elif not chunk:
            self.ended = True
            if self.incomplete_bytes:
                self.complete.append(b"".join(self.incomplete))

    def _take_window(self) -> list[bytes]:
        """Remove and return the lines of the next window."""
        count, size = 0, 0
        while count < min(len(self.complete), WINDOW_LINES) and size < WINDOW_BYTES:
            size += len(self.complete[count])
            count += 1
        taken, self.complete = self.complete[:count], self.complete[count:]
        return taken

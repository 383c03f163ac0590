"""Lines of a stream that may stay open: a file, a pipe or a terminal, a window of lines at a time."""

import os
import select
import time
from collections.abc import Iterator

from sentiment.errors import UserError

WINDOW_LINES = 1024
"""Lines handed on together: 16 batches of like length, so that little of a batch is padding."""

WINDOW_BYTES = 4_000_000
"""Bytes after which a window is full with fewer lines."""

LONGEST_LINE = 10_000_000
"""Bytes of a line; 700 times the longest review of the Large Movie Review Dataset. Bounds the memory."""

PAUSE_S = 0.05
"""An input that is silent for so long has paused: who writes it may be waiting for the answer."""

LATEST_S = 0.5
"""Longest time that a line waits for its window to fill where the input trickles and never pauses."""

READ_BYTES = 1 << 16

BYTE_ORDER_MARK = "\ufeff"


def read_windows(descriptor: int) -> Iterator[list[str]]:
    """Yield the lines of a stream in order, as soon as a window is full, the input pauses or it ends.

    A line ends with a newline, alone or behind a carriage return, and with nothing else; the last one may
    lack it. A byte-order mark at a line's start, where files with one were joined, is no part of the line.

    Args:
        descriptor: of the stream; read without Python's buffers, which would hide what has already come.

    Raises:
        UserError: the stream cannot be read, a line is not UTF-8 or longer than LONGEST_LINE. All lines
            before that one have then been yielded.
    """
    lines = _Lines(descriptor)
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


class _Lines:
    """Bytes of a stream, cut into lines."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.complete: list[bytes] = []
        self.begun: list[bytes] = []
        """Parts of a line whose end has not come yet."""
        self.begun_bytes = 0
        self.ended = False
        self.too_long = False

    def next_window(self) -> list[bytes]:
        """Wait for lines and return at least one; an empty list where the stream has ended."""
        oldest: float | None = time.monotonic() if self.complete else None
        while not (self.ended or self._is_full()):
            if not self._is_ready(oldest):
                break
            self._read()
            if self.complete and oldest is None:
                oldest = time.monotonic()
        return self._take()

    def _is_full(self) -> bool:
        return len(self.complete) >= WINDOW_LINES or sum(map(len, self.complete)) >= WINDOW_BYTES

    def _is_ready(self, oldest: float | None) -> bool:
        """Wait for input; without a limit as long as there is no line to hand on.

        oldest: when the first line of the window came.
        """
        patience = None
        if oldest is not None:
            patience = max(0.0, min(PAUSE_S, oldest + LATEST_S - time.monotonic()))
        return bool(select.select([self.descriptor], [], [], patience)[0])

    def _read(self) -> None:
        try:
            chunk = os.read(self.descriptor, READ_BYTES)
        except OSError as error:
            raise UserError(f"standard input: {error.strerror}") from None
        first, *others = chunk.split(b"\n")
        self.begun.append(first)
        self.begun_bytes += len(first)
        if self.begun_bytes > LONGEST_LINE:
            self.ended = self.too_long = True
        elif others:
            *whole, last = others
            lines = [b"".join(self.begun), *whole]
            self.complete += [line.removesuffix(b"\r") for line in lines]
            self.begun, self.begun_bytes = [last], len(last)
        elif not chunk:
            self.ended = True
            if self.begun_bytes:
                self.complete.append(b"".join(self.begun))

    def _take(self) -> list[bytes]:
        count, size = 0, 0
        while count < min(len(self.complete), WINDOW_LINES) and size < WINDOW_BYTES:
            size += len(self.complete[count])
            count += 1
        taken, self.complete = self.complete[:count], self.complete[count:]
        return taken

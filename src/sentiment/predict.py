"""`sentiment predict`: reviews from arguments or standard input, a line of standard output for each."""

import logging
import os
import re
import select
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import TypeVar

from sentiment import paths
from sentiment.errors import UserError

logger = logging.getLogger(__name__)


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


Item = TypeVar("Item")

UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\\\u2028\u2029]")
"""Characters that end a line for some reader, separate the columns or control a terminal; and the backslash,
so that the escapes written for them can be read back."""

SHORT_ESCAPES = {"\t": r"\t", "\n": r"\n", "\r": r"\r", "\\": r"\\"}


def predict(arguments: Sequence[str] | None, folder: Path) -> None:
    """Print each review's probability and text, in the order given, while further reviews may still come.

    Args:
        arguments: reviews of the command line; None or none for the lines of standard input.
        folder: with weights, configuration and tokenizer.

    Raises:
        UserError: no such model, no input or output, or a review that is not text. Of standard input, the
            reviews before that one have then been printed.
    """
    # A reader that ends early, as `head` does, then ends this process as it ends any other in the pipe.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    if sys.stdout is None:
        raise UserError("standard output is closed: nowhere to print to")
    windows = _windows_of_arguments(arguments) if arguments else _windows_of_standard_input()

    if not (folder / paths.TOKENIZER.name).is_file():
        raise UserError(
            f"{folder.absolute()}: no model with its tokenizer there; `dvc repro` makes {paths.SELECTED}"
        )

    from sentiment.model.predictor import Predictor  # seconds of torch, once nothing is left to refuse
    from sentiment.training.runtime import configure_allocator

    configure_allocator()  # else an eighth of the time goes into pages that each batch maps and zeroes anew
    predictor = Predictor.load(folder)
    encoded_windows = ((reviews, predictor.encode(reviews)) for reviews in windows)
    for reviews, encoded in read_ahead(encoded_windows):
        probabilities = predictor.predict_encoded(encoded)
        lines = (f"{p:.4f}\t{escaped(review)}\n" for p, review in zip(probabilities, reviews, strict=True))
        _write("".join(lines).encode("utf-8"))


def escaped(text: str) -> str:
    r"""Return text on one line and in one column: control characters, separators and backslashes escaped.

    A tab becomes `\t`, a form feed `\x0c`, a line separator `\u2028`, a backslash `\\`.
    """
    return UNSAFE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    code = ord(character)
    return SHORT_ESCAPES.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def read_ahead(items: Iterable[Item]) -> Iterator[Item]:
    """Yield items, while a thread makes the next two.

    The thread is a daemon: waiting for input that never comes, it does not keep an interrupted process alive.
    """
    queue: Queue[tuple[Item] | BaseException | None] = Queue(maxsize=1)

    def fill() -> None:
        try:
            for item in items:
                queue.put((item,))
            queue.put(None)
        except BaseException as error:  # raised again by the reader
            queue.put(error)

    Thread(target=fill, daemon=True).start()
    while (got := queue.get()) is not None:
        if isinstance(got, BaseException):
            raise got
        yield got[0]


def _windows_of_arguments(arguments: Sequence[str]) -> Iterator[Sequence[str]]:
    """Check all arguments, then yield them.

    Python decodes them by the locale, which may be ASCII: their bytes are UTF-8, as those of standard input.
    """
    reviews = []
    for number, argument in enumerate(arguments, start=1):
        try:
            reviews.append(os.fsencode(argument).decode("utf-8").removeprefix(BYTE_ORDER_MARK))
        except UnicodeDecodeError as error:
            where = f"({error.reason} at byte {error.start + 1})"
            raise UserError(f"review {number} of the command line: not UTF-8 text {where}") from None
    return (reviews[start : start + WINDOW_LINES] for start in range(0, len(reviews), WINDOW_LINES))


def _windows_of_standard_input() -> Iterator[Sequence[str]]:
    if sys.stdin is None:
        raise UserError("standard input is closed: give reviews as arguments or as lines of standard input")
    if sys.stdin.isatty():
        logger.info("Reviews from the terminal, one a line; Ctrl-D ends.")
    return read_windows(sys.stdin.fileno())


def _write(content: bytes) -> None:
    """Write all of it now; past Python's buffer, which would try again at exit what could not be written."""
    rest = memoryview(content)
    try:
        while rest:
            try:
                rest = rest[os.write(sys.stdout.fileno(), rest) :]
            except BlockingIOError:  # the other end made the pipe non-blocking, and it is full
                select.select([], [sys.stdout], [])
    except OSError as error:
        raise UserError(f"standard output: {error.strerror}") from None

"""`sentiment predict`: classify reviews from arguments or standard input, one output line per review."""

import logging
import os
import re
import select
import signal
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import TYPE_CHECKING, TypeVar

from sentiment import paths
from sentiment.errors import UserError
from sentiment.input_lines import BYTE_ORDER_MARK, WINDOW_BYTES, WINDOW_LINES, read_windows
from sentiment.model.model_config import CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE
from sentiment.settings import load_settings

if TYPE_CHECKING:
    from sentiment.model.predictor import Predictor

logger = logging.getLogger(__name__)

CLUSTER_BYTES = WINDOW_BYTES
"""Size of an input file from which a cluster is used, if there is one: less is predicted in the time that it
takes to connect."""

Item = TypeVar("Item")

ESCAPED_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\\\u2028\u2029]")
"""Characters that a program may take for the end of a line or a column, terminal control characters, and the
backslash, so that escaped text can be unescaped."""

SHORT_ESCAPES = {"\t": r"\t", "\n": r"\n", "\r": r"\r", "\\": r"\\"}


def predict(arguments: Sequence[str] | None, folder: Path) -> None:
    """Print the probability and the text of each review, in order and without waiting for all input.

    Args:
        arguments: reviews from the command line; None or empty to read lines of standard input.
        folder: model folder with the weights, the configuration and the tokenizer.

    Raises:
        UserError: there is no such model, standard input or output cannot be used, or a review is not UTF-8.
            Reviews of standard input before that one have been printed then.
    """
    # If the reader of a pipe ends early, as `head` does, the signal ends this process silently.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    if sys.stdout is None:
        raise UserError("standard output is closed")
    windows = _split_arguments(arguments) if arguments else _read_standard_input()

    if not (folder / paths.TOKENIZER.name).is_file():
        raise UserError(
            f"{folder.absolute()}: contains no model with its tokenizer; `dvc repro` writes {paths.SELECTED}"
        )

    predict_windows = _predict_on_cluster if not arguments and _uses_cluster() else _predict_here
    for lines in predict_windows(folder, windows):
        _write(lines)


def _uses_cluster() -> bool:
    """Return whether standard input is a large file, and the environment has the address of a cluster.

    Lines of a pipe may arrive slowly, and their writer may wait for the results.
    """
    status = os.fstat(sys.stdin.fileno())
    is_large = stat.S_ISREG(status.st_mode) and status.st_size > CLUSTER_BYTES
    return is_large and load_settings().ray_address is not None


def _predict_here(folder: Path, windows: Iterable[Sequence[str]]) -> Iterator[bytes]:
    """Yield the output of each window; the next windows are read and encoded in the meantime."""
    predictor = _load_predictor(folder)
    encoded_windows = ((reviews, predictor.encode(reviews)) for reviews in windows)
    for reviews, encoded in read_ahead(encoded_windows):
        yield _format_lines(predictor.predict_encoded(encoded), reviews)


def _predict_on_cluster(folder: Path, windows: Iterable[Sequence[str]]) -> Iterator[bytes]:
    """Yield the output of each window, in order; each window is predicted by a task on the Ray cluster."""
    from sentiment.shards.choice import open_shard_maps

    _load_predictor(folder)  # raises an error for an invalid model, before a cluster is asked for anything
    files = {name: (folder / name).read_bytes() for name in (CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE)}
    with open_shard_maps(load_settings(), "the prediction of 1,024 reviews") as choose_map:
        yield from choose_map(WINDOW_LINES).map(_WindowPredictor, files, windows)


class _WindowPredictor:
    """Predicts windows of reviews, in any process.

    Args:
        files: content of the files of the model, by name.
    """

    def __init__(self, files: Mapping[str, bytes]) -> None:
        with tempfile.TemporaryDirectory(prefix="sentiment-model-") as name:
            for file, content in files.items():
                (Path(name) / file).write_bytes(content)
            self._predictor = _load_predictor(Path(name))

    def __call__(self, windows: Iterable[Sequence[str]]) -> bytes:
        """Return the output of windows. Each of them is predicted by itself, so that batches are the same."""
        return b"".join(_format_lines(self._predictor.predict(window), window) for window in windows)


def _load_predictor(folder: Path) -> "Predictor":
    from sentiment.model.predictor import Predictor  # importing torch takes seconds: after all checks
    from sentiment.training.runtime import configure_allocator

    configure_allocator()  # otherwise mapping and zeroing pages takes an eighth of the time
    return Predictor.load(folder)


def _format_lines(probabilities: Iterable[float], reviews: Sequence[str]) -> bytes:
    lines = (f"{p:.4f}\t{escape(review)}\n" for p, review in zip(probabilities, reviews, strict=True))
    return "".join(lines).encode("utf-8")


def escape(text: str) -> str:
    r"""Escape control characters, separators and backslashes, so that a text fits into one line and column.

    A tab becomes `\t`, a form feed `\x0c`, a line separator `\u2028`, a backslash `\\`.
    """
    return ESCAPED_CHARACTERS.sub(_escape_character, text)


def _escape_character(match: re.Match[str]) -> str:
    character = match[0]
    code = ord(character)
    return SHORT_ESCAPES.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def read_ahead(items: Iterable[Item]) -> Iterator[Item]:
    """Yield items while a thread computes the next two.

    The thread is a daemon, so that an interrupted process can exit while it waits for input.
    """
    queue: Queue[tuple[Item] | BaseException | None] = Queue(maxsize=1)

    def fill() -> None:
        try:
            for item in items:
                queue.put((item,))
            queue.put(None)
        except BaseException as error:  # raised again in the main thread
            queue.put(error)

    Thread(target=fill, daemon=True).start()
    while (result := queue.get()) is not None:
        if isinstance(result, BaseException):
            raise result
        yield result[0]


def _split_arguments(arguments: Sequence[str]) -> Iterator[Sequence[str]]:
    """Check all arguments, then return them in windows.

    Python decodes arguments by the locale, which may be ASCII; their bytes are UTF-8, like standard input.
    """
    reviews = []
    for number, argument in enumerate(arguments, start=1):
        try:
            reviews.append(os.fsencode(argument).decode("utf-8").removeprefix(BYTE_ORDER_MARK))
        except UnicodeDecodeError as error:
            where = f"({error.reason} at byte {error.start + 1})"
            raise UserError(f"review {number} of the command line: not UTF-8 text {where}") from None
    return (reviews[start : start + WINDOW_LINES] for start in range(0, len(reviews), WINDOW_LINES))


def _read_standard_input() -> Iterator[Sequence[str]]:
    if sys.stdin is None:
        raise UserError("standard input is closed: pass reviews as arguments or as lines of standard input")
    if sys.stdin.isatty():
        logger.info("Type reviews, one per line; Ctrl-D ends the input.")
    return read_windows(sys.stdin.fileno())


def _write(content: bytes) -> None:
    """Write all bytes without Python's buffer, which would retry a failed write at exit."""
    unwritten = memoryview(content)
    try:
        while unwritten:
            try:
                unwritten = unwritten[os.write(sys.stdout.fileno(), unwritten) :]
            except BlockingIOError:  # the reader made the pipe non-blocking, and it is full
                select.select([], [sys.stdout], [])
    except OSError as error:
        raise UserError(f"standard output: {error.strerror}") from None

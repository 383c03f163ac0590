"""Logging and progress: log records and bars on standard error."""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeVar

from tqdm import tqdm

logger = logging.getLogger(__name__)

LOGGERS = ("sentiment", "stages", "bench", "__main__")
"""The project's own loggers; a stage or a benchmark runs as `__main__`. Libraries keep their own handlers."""

Item = TypeVar("Item")
Unit = Literal["items", "bytes"]

SECONDS_BETWEEN_LINES = 10.0

_silent = False


def progress(
    items: Iterable[Item],
    total: int,
    description: str,
    size: Callable[[Item], int] = lambda _: 1,
    *,
    done: int = 0,
) -> Iterator[Item]:
    """Yield `items` while showing how far it is: a bar on a terminal, else a line every ten seconds.

    size: what an item adds towards `total`; by default each counts for one. done: what was done before.
    """
    with progress_bar(description, total, done=done) as advance:
        for item in items:
            yield item
            advance(size(item))


@contextmanager
def progress_bar(
    description: str, total: int | None, *, unit: Unit = "items", done: int = 0
) -> Iterator[Callable[[int], object]]:
    """Yield a function that takes how much more is done; show share, speed and time left as it is called.

    total: None where nobody knows. done: what was there before, which counts for the share, not the speed.
    """
    if _silent:
        yield lambda amount: None
    elif sys.stderr.isatty():
        with tqdm(
            total=total,
            initial=done,
            desc=description,
            leave=False,
            unit="B" if unit == "bytes" else "it",
            unit_scale=unit == "bytes",
        ) as bar:
            yield bar.update
    else:
        yield _Lines(description, total, unit, done).advance


def configure_logging() -> None:
    """Send the project's log records to standard error, above a progress bar if there is one.

    The environment variable LOG_LEVEL sets the level, by default INFO. Lines have a time stamp where the
    variable CI is set, as CI services do.
    """
    handler = _TqdmHandler()
    handler.setFormatter(_Formatter("%(asctime)s %(message)s" if os.environ.get("CI") else "%(message)s"))
    level = os.environ.get("LOG_LEVEL", "INFO").upper()
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(level)


def silence() -> None:
    """Log nothing from here on: in a worker process, whose parent logs for all of them."""
    global _silent  # noqa: PLW0603  # of the process, like standard error itself
    _silent = True
    logging.disable(logging.CRITICAL)


class _TqdmHandler(logging.Handler):
    """Writes records without breaking a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)
        sys.stderr.flush()


class _Formatter(logging.Formatter):
    """Puts the level in front of what is worse than information."""

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        return line if record.levelno <= logging.INFO else f"{record.levelname.lower()}: {line}"


class _Lines:
    """What a log gets: a line when the last one is ten seconds old."""

    def __init__(self, description: str, total: int | None, unit: Unit, done: int) -> None:
        self.description, self.total, self.unit = description, total, unit
        self.done = self.done_at_start = done
        self.start = self.last = time.monotonic()

    def advance(self, amount: int) -> None:
        self.done += amount
        now = time.monotonic()
        if now - self.last >= SECONDS_BETWEEN_LINES:
            self.last = now
            logger.info(f"{self.description}: {self._state(now - self.start)}")

    def _state(self, seconds: float) -> str:
        speed = (self.done - self.done_at_start) / seconds
        parts = [f"{_megabytes(speed)}/s"] if self.unit == "bytes" else []
        show = _megabytes if self.unit == "bytes" else str
        if not self.total:
            return ", ".join([show(self.done), *parts])
        if speed > 0:
            parts.append(f"{_duration((self.total - self.done) / speed)} left")
        amounts = f"{show(self.done)} of {show(self.total)}"
        return f"{self.done / self.total:.0%} ({', '.join([amounts, *parts])})"


def _megabytes(amount: float) -> str:
    return f"{amount / 1e6:.1f} MB"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"

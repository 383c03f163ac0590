"""Logging and progress bars, both on standard error."""

import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

from tqdm import tqdm

logger = logging.getLogger(__name__)

LOGGERS = ("sentiment", "stages", "bench", "__main__")
"""The project's own loggers; a stage or a benchmark runs as `__main__`. Libraries keep their own handlers."""

Item = TypeVar("Item")
Unit = Literal["items", "bytes"]

SECONDS_BETWEEN_LINES = 10.0
"""Minimum interval between progress lines if standard error is not a terminal."""

_silent = False


def progress(
    items: Iterable[Item],
    total: int,
    description: str,
    size: Callable[[Item], int] = lambda _: 1,
    *,
    done: int = 0,
) -> Iterator[Item]:
    """Yield items while showing progress: a bar on a terminal, else a log line every ten seconds.

    Args:
        items: items to yield.
        total: total size of all items, including `done`.
        description: label shown before the progress.
        size: function that returns the size of an item; by default, every item has size 1.
        done: total size of the items that an earlier run has processed.
    """
    with progress_bar(description, total, done=done) as advance:
        for item in items:
            yield item
            advance(size(item))


@contextmanager
def progress_bar(
    description: str, total: int | None, *, unit: Unit = "items", done: int = 0
) -> Iterator[Callable[[int], object]]:
    """Show progress, and yield a function with which the caller reports it.

    Args:
        description: label shown before the progress.
        total: final amount, including `done`; None if unknown.
        unit: unit of all amounts.
        done: amount that an earlier run has processed, which does not count towards the speed.

    Yields:
        A function that takes the amount processed since its last call.
    """
    bar_type = tqdm if sys.stderr.isatty() else _LoggedProgress
    with bar_type(
        total=total,
        initial=done,
        desc=description,
        unit="B" if unit == "bytes" else "it",
        unit_scale=unit == "bytes",
        leave=False,
        disable=_silent,
    ) as bar:
        yield bar.update


class _LoggedProgress(tqdm):  # type: ignore[type-arg]  # generic in the type stubs alone
    """A tqdm bar that logs lines, at most one every SECONDS_BETWEEN_LINES, instead of drawing a bar."""

    monitor_interval = 0  # no thread that redraws a bar which is not advancing

    def __init__(self, *, total: int | None, **options: Any) -> None:
        text = "{desc}: {percentage:.0f}% | {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}]"
        super().__init__(
            total=total,
            bar_format=text if total else None,
            mininterval=SECONDS_BETWEEN_LINES,
            delay=SECONDS_BETWEEN_LINES,
            miniters=1,
            smoothing=0,
            **options,
        )

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Log the state; tqdm calls this to redraw, and with an empty message to clear the bar at its end."""
        if msg != "":
            logger.info(msg or str(self))


def configure_logging() -> None:
    """Send the project's log records to standard error, above a progress bar if there is one.

    The level is that of the setting LOG_LEVEL. Lines have a time stamp if the environment variable CI is set,
    as CI services do.

    Raises:
        UserError: LOG_LEVEL is invalid.
    """
    from sentiment.settings import load_log_level  # a served model logs without the project's settings

    handler = _TqdmHandler()
    handler.setFormatter(_Formatter("%(asctime)s %(message)s" if os.environ.get("CI") else "%(message)s"))
    level = load_log_level()
    for name in LOGGERS:
        project_logger = logging.getLogger(name)
        project_logger.handlers = [handler]
        project_logger.propagate = False
        project_logger.setLevel(level)


def silence() -> None:
    """Disable logging and progress bars in this worker process, whose parent process logs for all workers."""
    global _silent  # noqa: PLW0603  # state of the process, like standard error itself
    _silent = True
    logging.disable(logging.CRITICAL)


class _TqdmHandler(logging.Handler):
    """Writes records to standard error without breaking a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        if sys.stderr.isatty():
            tqdm.write(line, file=sys.stderr)
        else:  # tqdm.write redraws every bar, and a bar without a terminal logs: that would recurse
            print(line, file=sys.stderr)
        sys.stderr.flush()


class _Formatter(logging.Formatter):
    """Prefixes records above INFO with their level."""

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        return line if record.levelno <= logging.INFO else f"{record.levelname.lower()}: {line}"

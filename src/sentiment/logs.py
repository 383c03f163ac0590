"""A bar on a terminal, plain lines in a log."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
Unit = Literal["items", "bytes"]

SECONDS_BETWEEN_LINES = 10.0

_silent = False


def track(
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
    with counting(description, total, done=done) as advance:
        for item in items:
            yield item
            advance(size(item))


@contextmanager
def counting(
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


def silence() -> None:
    """Show nothing from here on: in a process beside others, one of which shows what all of them do."""
    global _silent  # noqa: PLW0603  # of the process, like standard error itself
    _silent = True


def say(line: str) -> None:
    """Write one line to standard error, above a bar if there is one."""
    if _silent:
        return
    tqdm.write(line, file=sys.stderr)
    sys.stderr.flush()


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
            say(f"{self.description}: {self._state(now - self.start)}")

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

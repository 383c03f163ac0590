"""A bar on a terminal, plain lines in a log."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")

SECONDS_BETWEEN_LINES = 10.0


def track(
    items: Iterable[Item], total: int, description: str, size: Callable[[Item], int] = lambda _: 1
) -> Iterator[Item]:
    """Yield `items` while showing how far it is: a bar on a terminal, else a line every ten seconds.

    size: what an item adds towards `total`; by default each counts for one.
    """
    if sys.stderr.isatty():
        with tqdm(total=total, desc=description, leave=False) as bar:
            for item in items:
                yield item
                bar.update(size(item))
        return
    last = time.monotonic()
    done = 0
    for item in items:
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES:
            say(f"{description}: {done} of {total}")
            last = now
        yield item
        done += size(item)


def say(line: str) -> None:
    """Write one line to standard error, above a bar if there is one."""
    tqdm.write(line, file=sys.stderr)
    sys.stderr.flush()

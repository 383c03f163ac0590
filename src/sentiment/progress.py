"""A bar on a terminal, plain lines in a log."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")

SECONDS_BETWEEN_LINES = 10.0


def track(items: Iterable[Item], total: int, description: str) -> Iterator[Item]:
    """Yield `items` while showing how far it is: a bar on a terminal, else a line every ten seconds."""
    if sys.stderr.isatty():
        yield from tqdm(items, total=total, desc=description, leave=False)
        return
    last = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES:
            say(f"{description}: {done} of {total}")
            last = now
        yield item


def say(line: str) -> None:
    """Write one line to standard error, above a bar if there is one."""
    tqdm.write(line, file=sys.stderr)
    sys.stderr.flush()

"""What processes that start others, and those that they start, do about signals and each other's end."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def blocked_interrupts() -> Iterator[None]:
    """Block SIGINT in this thread and in the processes that it starts.

    Otherwise, Ctrl-C during the imports of a child process would print a traceback.
    """
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def end_with_parent() -> None:
    """Start a thread that ends this process, a child process of `multiprocessing`, when its parent ends.

    It ends immediately: a restarted parent waits until the locks of this process are released.
    """
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def interrupt(signal_number: int, frame: FrameType | None) -> None:
    """Handle SIGTERM as Ctrl-C; a handler of `signal.signal`. No second signal interrupts the cleanup."""
    signal.signal(signal_number, signal.SIG_IGN)
    raise KeyboardInterrupt

"""What processes that start others, and those that they start, do about signals and each other's end."""

import multiprocessing
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import psutil

END_S = 10
"""Seconds that processes have for ending after a signal, before they get a stronger one."""


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


class Terminated(KeyboardInterrupt):
    """SIGTERM, handled as Ctrl-C. Unlike that of a terminal, the processes that this one started lack it."""


def interrupt(signal_number: int, frame: FrameType | None) -> None:
    """Handle SIGTERM as Ctrl-C; a handler of `signal.signal`. No second signal interrupts the cleanup."""
    signal.signal(signal_number, signal.SIG_IGN)
    raise Terminated


@contextmanager
def interrupted_by_sigterm() -> Iterator[None]:
    """Handle SIGTERM as Ctrl-C in this process."""
    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def end_processes(process: "subprocess.Popen[bytes]", *, are_told: bool) -> bytes:
    """End a process and all that it started as Ctrl-C does, and wait for them; return the rest of the output.

    SIGTERM would end DVC before its stage, with its locks. So it is left to those that ignore Ctrl-C, as in
    the background, or take longer than `END_S`.

    Args:
        process: process whose standard output is a pipe.
        are_told: whether they have got Ctrl-C, as from a terminal.
    """
    numbers = [signal.SIGTERM, signal.SIGKILL]
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # which they would have inherited
        numbers.insert(0, signal.SIGINT)
    for number in numbers:
        if not (are_told and number == signal.SIGINT):
            for each in _list_family(process.pid):
                with suppress(psutil.NoSuchProcess):
                    each.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            output, _ = process.communicate(timeout=END_S)
            return output
    return b""


def _list_family(pid: int) -> list[psutil.Process]:
    """Return a process and all that it started, directly or not."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []

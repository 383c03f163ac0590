"""What work takes: seconds, memory, and a process of its own so that both are its own."""

import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Generic, ParamSpec, Self, TypeVar

from sentiment.logs import configure_logging

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def in_fresh_process(
    work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Result:
    """Return what `work` returns, done by a process that has done nothing else.

    It takes over its parent's peak memory when it starts: a parent that measures memory must stay small.
    """
    with ProcessPoolExecutor(
        1, mp_context=multiprocessing.get_context("spawn"), initializer=configure_logging
    ) as pool:
        return pool.submit(work, *args, **kwargs).result()


class Resident(Generic[Arguments, Result]):
    """A function object that lives in its own process and keeps what it made there from call to call."""

    def __init__(self, make: Callable[..., Callable[Arguments, Result]], *args: Any) -> None:
        """make: what makes the object there, with these arguments."""
        self._pool = ProcessPoolExecutor(
            1, mp_context=multiprocessing.get_context("spawn"), initializer=_settle, initargs=(make, args)
        )

    def __call__(self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        """Call the object and wait for its answer."""
        answer: Result = self._pool.submit(_ask, *args, **kwargs).result()
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()


_resident: list[Callable[..., Any]] = []
"""What lives in this process."""


def _settle(make: Callable[..., Callable[..., Any]], args: tuple[Any, ...]) -> None:
    configure_logging()
    _resident.append(make(*args))


def _ask(*args: Any, **kwargs: Any) -> Any:
    return _resident[0](*args, **kwargs)


def peak_memory() -> float:
    """Return this process's largest resident set so far, in MB."""
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts in bytes, Linux in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def seconds_of(work: Callable[Arguments, object], *args: Arguments.args, **kwargs: Arguments.kwargs) -> float:
    """Return how long `work` takes."""
    start = time.perf_counter()
    work(*args, **kwargs)
    return time.perf_counter() - start

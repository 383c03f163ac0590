"""The map over shards in several processes of this machine."""

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, Generic

from sentiment.child_processes import blocked_interrupts, end_with_parent
from sentiment.errors import UserError
from sentiment.logs import silence
from sentiment.shards.shard_map import (
    SHARD_ROWS,
    SHARDS_PER_WORKER,
    Batch,
    BuildFunction,
    Result,
    Shard,
    Shared,
    cut_into_shards,
    map_in_order,
)

MAX_CRASHES = 3
"""Number of times that a process may crash while the same shard is due, before the work stops."""


@dataclass(frozen=True)
class Processes:
    """Works on several shards at the same time, in child processes. A shard whose process dies is repeated.

    Attributes:
        count: number of processes.
        shard_rows: minimum number of rows of a shard, except for the last one.
    """

    count: int
    shard_rows: int = SHARD_ROWS

    def map(
        self, build: BuildFunction[Shared, Batch, Result], shared: Shared, batches: Iterable[Batch]
    ) -> Iterator[Result]:
        """Yield the result of each shard, in order."""
        pool = _Pool(self.count, (build, shared))
        shards = cut_into_shards(batches, self.shard_rows)
        try:
            yield from map_in_order(pool.submit, pool.wait, shards, SHARDS_PER_WORKER * self.count)
        finally:
            pool.shut_down()


@dataclass
class _Task(Generic[Shard]):
    """A shard and the process pool that works on it.

    Attributes:
        crashes: number of times that a process crashed while the result of this shard was due.
    """

    shard: Shard
    pool: ProcessPoolExecutor
    future: Future[Any]
    crashes: int = 0


class _Pool:
    """Child processes that have the same function; they are replaced when one of them dies."""

    def __init__(self, count: int, recipe: tuple[Callable[[Any], Callable[[Any], Any]], Any]) -> None:
        self._count, self._recipe = count, recipe
        self._executor = self._start()

    def submit(self, shard: Shard) -> _Task[Shard]:
        return _Task(shard, *self._send(shard))

    def wait(self, task: _Task[Any]) -> Any:
        while True:
            try:
                return task.future.result()
            except BrokenProcessPool:
                if task.pool is self._executor:  # otherwise another task has replaced it
                    task.crashes += 1
                    if task.crashes == MAX_CRASHES:
                        raise UserError(
                            f"a process that works on reviews was killed {MAX_CRASHES} times, perhaps "
                            "because memory ran out; try again with DATA_WORKERS=1"
                        ) from None
                    self._executor = self._start()
                task.pool, task.future = self._send(task.shard)

    def shut_down(self) -> None:
        self._executor.shutdown(cancel_futures=True)

    def _start(self) -> ProcessPoolExecutor:
        # A fork of a process with threads may hang.
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self._count, context, _prepare_process, self._recipe)

    def _send(self, shard: Any) -> tuple[ProcessPoolExecutor, Future[Any]]:
        with blocked_interrupts():
            try:
                future = self._executor.submit(_run, shard)
            except BrokenProcessPool:  # a process has died since the last result
                self._executor = self._start()
                future = self._executor.submit(_run, shard)
        return self._executor, future


_function: Callable[[Any], Any] | None = None
"""Function that this child process applies to shards."""


def _prepare_process(build: Callable[[Any], Callable[[Any], Any]], shared: Any) -> None:
    global _function  # noqa: PLW0603  # a pool passes state to its processes through their modules only
    end_with_parent()
    silence()
    # Each core has a process, so the library of tokenizers must not start a thread for each core too.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _function = build(shared)


def _run(shard: Any) -> Any:
    assert _function is not None, "the pool prepares each process first"  # noqa: S101
    return _function(shard)

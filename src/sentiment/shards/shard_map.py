"""The interface of maps over shards, and the map in this process."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass
from typing import Protocol, TypeVar

Shared = TypeVar("Shared")
Batch = TypeVar("Batch", bound=Sized)
Result = TypeVar("Result")
Shard = TypeVar("Shard")
Submitted = TypeVar("Submitted")

BuildFunction = Callable[[Shared], Callable[[list[Batch]], Result]]
"""Makes the function that is applied to shards, once in each process; importable from there."""

SHARD_ROWS = 2_048
"""Rows of a shard that another process works on: 3 MB of reviews, a fifth of a second of tokenization. So the
2 ms of a task on Ray cost 1%, and two shards in memory for each worker are little."""

SHARDS_PER_WORKER = 2
"""Shards that have been submitted, for each worker: one that it works on, and the next one."""


class ShardMap(Protocol):
    """Applies a function to shards."""

    def map(
        self, build: BuildFunction[Shared, Batch, Result], shared: Shared, batches: Iterable[Batch]
    ) -> Iterator[Result]:
        """Yield the result of each shard, in order.

        If reading a batch raises, the results of all earlier shards are yielded first.

        Args:
            build: makes the function from `shared`.
            shared: what the function needs for every shard, such as a tokenizer, sent to each process once.
            batches: batches of rows, which are divided into shards.

        Raises:
            UserError: a process or node crashed repeatedly during the same shard.
        """


@dataclass(frozen=True)
class InProcess:
    """Works on the shards one after the other in this process.

    Attributes:
        shard_rows: minimum number of rows of a shard, except for the last one.
    """

    shard_rows: int = 1

    def map(
        self, build: BuildFunction[Shared, Batch, Result], shared: Shared, batches: Iterable[Batch]
    ) -> Iterator[Result]:
        """Yield the result of each shard, in order."""
        return map(build(shared), cut_into_shards(batches, self.shard_rows))


IN_PROCESS = InProcess()


def cut_into_shards(batches: Iterable[Batch], rows: int) -> Iterator[list[Batch]]:
    """Yield lists of consecutive batches that have at least `rows` rows, except for the last list.

    If the batches end with an error, it is raised after the batches before it.
    """
    shard: list[Batch] = []
    count = 0
    try:
        for batch in batches:
            shard.append(batch)
            count += len(batch)
            if count >= rows:
                yield shard
                shard, count = [], 0
    except Exception:
        if shard:
            yield shard
        raise
    if shard:
        yield shard


def map_in_order(
    submit: Callable[[Shard], Submitted],
    wait: Callable[[Submitted], Result],
    shards: Iterable[Shard],
    limit: int,
) -> Iterator[Result]:
    """Yield results in order, while up to `limit` shards are submitted.

    Args:
        submit: starts to work on a shard, without waiting.
        wait: returns the result of a shard when it is there.
        shards: shards, which are read when they can be submitted.
        limit: maximum number of shards that are submitted and whose results have not been yielded.
    """
    submitted: deque[Submitted] = deque()
    waiting = iter(shards)
    failure: Exception | None = None
    while True:
        try:
            shard = next(waiting)
        except StopIteration:
            break
        except Exception as error:
            failure = error  # raised after the results of the shards before it
            break
        submitted.append(submit(shard))
        if len(submitted) == limit:
            yield wait(submitted.popleft())
    while submitted:
        yield wait(submitted.popleft())
    if failure is not None:
        raise failure

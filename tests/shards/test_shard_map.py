"""Maps over shards: order, bounded memory, and errors, in process and in processes."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pytest

from sentiment.errors import UserError
from sentiment.settings import Settings
from sentiment.shards.choice import ROWS_PER_PROCESS, choose_local_map, open_shard_maps
from sentiment.shards.processes import Processes
from sentiment.shards.shard_map import IN_PROCESS, InProcess, ShardMap, cut_into_shards, map_in_order

BATCHES = [[1, 2, 3], [4], [5, 6], [7, 8, 9, 10], [11]]


@pytest.mark.parametrize(("rows", "sizes"), [(1, [3, 1, 2, 4, 1]), (4, [4, 6, 1]), (100, [11])])
def test_shards_are_consecutive_batches(rows: int, sizes: list[int]) -> None:
    shards = list(cut_into_shards(BATCHES, rows))
    assert [batch for shard in shards for batch in shard] == BATCHES
    assert [sum(map(len, shard)) for shard in shards] == sizes


def test_batches_before_an_error_are_in_a_shard() -> None:
    def read() -> Iterator[list[str]]:
        yield from (["a"], ["b", "c"], ["d"])
        raise UserError("line 5 is not UTF-8")

    shards = cut_into_shards(read(), 3)
    assert next(shards) == [["a"], ["b", "c"]]
    assert next(shards) == [["d"]]
    with pytest.raises(UserError, match="line 5"):
        next(shards)


def test_number_of_submitted_shards_is_bounded() -> None:
    submitted: list[int] = []

    def submit(shard: int) -> int:
        submitted.append(shard)
        return shard

    results = map_in_order(submit, lambda shard: shard, iter(range(10)), limit=3)
    for expected, result in enumerate(results):
        assert result == expected
        assert len(submitted) <= expected + 3
    assert submitted == list(range(10))


class Summing:
    """Sums the numbers of a shard; kills its process, or raises, at a number."""

    def __init__(self, fault: tuple[int, Path | None] | None) -> None:
        self.fault = fault

    def __call__(self, batches: Iterable[Sequence[int]]) -> int:
        numbers = [number for batch in batches for number in batch]
        if self.fault and self.fault[0] in numbers:
            marker = self.fault[1]
            if marker is None:
                raise UserError(f"{self.fault[0]} is not a number that can be added")
            if len(list(marker.iterdir())) < 2:
                (marker / str(os.getpid())).touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return sum(numbers)


LOCAL = [InProcess(), pytest.param(Processes(2, 1), marks=pytest.mark.slow)]


@pytest.mark.parametrize("shards", LOCAL)
def test_results_before_a_fault_in_the_input_are_yielded(shards: ShardMap) -> None:
    def read() -> Iterator[list[int]]:
        yield from BATCHES[:3]
        raise UserError("line 4: not UTF-8 text")

    results = shards.map(Summing, None, read())
    assert [next(results) for _ in range(3)] == [6, 4, 11]
    with pytest.raises(UserError, match="line 4: not UTF-8 text"):
        next(results)


@pytest.mark.parametrize("shards", LOCAL)
def test_error_of_a_shard_keeps_its_message(shards: ShardMap) -> None:
    results = shards.map(Summing, (4, None), BATCHES)
    assert next(results) == 6
    with pytest.raises(UserError, match=r"^4 is not a number that can be added$"):
        next(results)


@pytest.mark.slow
def test_shard_of_a_killed_process_is_repeated(tmp_path: Path) -> None:
    sums = [sum(batch) for batch in BATCHES]
    assert list(Processes(2, 1).map(Summing, (4, tmp_path), BATCHES)) == sums
    assert len(list(tmp_path.iterdir())) == 2


class SummingSlowly(Summing):
    """Has not ended the next shard when the sum of one is read."""

    def __call__(self, batches: Iterable[Sequence[int]]) -> int:
        time.sleep(0.2)
        return super().__call__(batches)


@pytest.mark.slow
def test_processes_killed_after_each_result_lose_none() -> None:
    results = Processes(2, 1).map(SummingSlowly, None, BATCHES)
    for batch in BATCHES:
        assert next(results) == sum(batch)
        for child in multiprocessing.active_children():
            child.kill()
        time.sleep(0.2)  # until the pool knows that it is broken


class Dying:
    """Kills its process."""

    def __init__(self, _: None) -> None: ...

    def __call__(self, batches: Iterable[Sequence[int]]) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return 0


@pytest.mark.slow
def test_shard_that_kills_every_process_stops_the_work() -> None:
    with pytest.raises(UserError, match="was killed 3 times"):
        list(Processes(2, 1).map(Dying, None, BATCHES))


@pytest.mark.parametrize(
    ("max_workers", "rows", "count"),
    [(None, ROWS_PER_PROCESS, 1), (4, 4 * ROWS_PER_PROCESS, 4), (4, 3 * ROWS_PER_PROCESS, 3), (1, 10**8, 1)],
)
def test_processes_by_rows(max_workers: int | None, rows: int, count: int) -> None:
    assert choose_local_map(max_workers, rows) == (IN_PROCESS if count == 1 else Processes(count))


def test_processes_and_cluster_at_once_are_an_error() -> None:
    settings = Settings(data_workers=2, ray_address="127.0.0.1:1")
    with (
        pytest.raises(UserError, match="DATA_WORKERS and RAY_ADDRESS are both set"),
        open_shard_maps(settings, "x"),
    ):
        pass


def test_map_is_lazy() -> None:
    """A stream is read as its shards are due."""
    read: list[int] = []

    def batches() -> Iterator[list[int]]:
        for batch in BATCHES:
            read.append(len(batch))
            yield batch

    build: Callable[[None], Summing] = Summing
    results = IN_PROCESS.map(build, None, batches())
    assert next(results) == 6
    assert read == [3]

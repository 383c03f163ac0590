"""Which map over shards a stage or command uses: decided by the environment and the number of rows."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from sentiment.cluster.connection import connect
from sentiment.errors import UserError
from sentiment.settings import Settings
from sentiment.shards.on_ray import NEEDS, OnRay
from sentiment.shards.processes import Processes
from sentiment.shards.shard_map import IN_PROCESS, ShardMap

ROWS_PER_PROCESS = 25_000
"""Rows for which one more process pays: about 3 s of tokenization, compared with 1 s to start a process."""

ChooseMap = Callable[[int], ShardMap]
"""Function from a number of rows to the map that suits it."""


@contextmanager
def open_shard_maps(settings: Settings, what: str) -> Iterator[ChooseMap]:
    """Connect to the Ray cluster in `RAY_ADDRESS`, if it is set; yield a function that chooses a map by rows.

    Args:
        settings: settings of this machine.
        what: the work on one shard in messages, such as "the tokenization of a shard".

    Raises:
        UserError: the cluster cannot be used, or the settings contradict each other.
    """
    if settings.ray_address is None:
        yield partial(choose_local_map, settings.data_workers)
        return
    if settings.data_workers is not None:
        raise UserError(
            "DATA_WORKERS and RAY_ADDRESS are both set: unset DATA_WORKERS to run on the cluster, or "
            "RAY_ADDRESS to run in processes of this machine"
        )
    with connect(NEEDS, what, settings=settings) as cluster:
        on_ray = OnRay(cluster)
        yield lambda rows: on_ray


def choose_local_map(max_workers: int | None, rows: int) -> ShardMap:
    """Return a map over shards on this machine, with a process for each `ROWS_PER_PROCESS` rows.

    Args:
        max_workers: maximum number of processes; None for the number of cores.
        rows: number of rows in all shards.
    """
    count = min(max_workers or _count_cores(), rows // ROWS_PER_PROCESS)
    return Processes(count) if count > 1 else IN_PROCESS


def _count_cores() -> int:
    """Return the number of cores that this process may use; macOS cannot limit them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

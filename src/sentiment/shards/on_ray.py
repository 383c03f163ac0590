"""The map over shards as tasks on a Ray cluster."""

import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sentiment.cluster.connection import Cluster
from sentiment.cluster.resources import Needs
from sentiment.cluster.versions import require_versions
from sentiment.errors import UserError
from sentiment.shards.shard_map import (
    SHARD_ROWS,
    SHARDS_PER_WORKER,
    Batch,
    BuildFunction,
    Result,
    Shared,
    cut_into_shards,
    map_in_order,
)

NEEDS = Needs(cpus=1)
"""What the work on one shard needs of a node."""

MAX_RETRIES = 10
"""Number of times that a task is repeated whose worker or node died. Nodes may die often, but a shard that
exhausts the memory of each node must stop the work."""


@dataclass(frozen=True)
class OnRay:
    """Works on shards on the nodes of a Ray cluster. A shard whose worker or node dies is repeated.

    The nodes need the installed package, but no files of this repository: this process reads the shards, and
    they travel through Ray's object store.

    Attributes:
        cluster: cluster that this process is connected to.
        shard_rows: minimum number of rows of a shard, except for the last one.
    """

    cluster: Cluster
    shard_rows: int = SHARD_ROWS

    def map(
        self, build: BuildFunction[Shared, Batch, Result], shared: Shared, batches: Iterable[Batch]
    ) -> Iterator[Result]:
        """Yield the result of each shard, in order."""
        import ray

        task = ray.remote(max_retries=MAX_RETRIES, **NEEDS.to_options())(_run)
        recipe = _Recipe(uuid.uuid4().hex, build, self.cluster.versions, ray.put(shared))

        def wait(result: Any) -> Any:
            try:
                return ray.get(result)
            except ray.exceptions.RayTaskError as error:
                raise (error.cause if isinstance(error.cause, Exception) else error) from None
            except ray.exceptions.RayError as error:
                cause = " ".join(str(error).split())
                raise UserError(
                    f"Ray: a task failed {MAX_RETRIES + 1} times; the last time: {cause}"
                ) from None

        shards = cut_into_shards(batches, self.shard_rows)
        limit = SHARDS_PER_WORKER * max(1, self.cluster.count_slots(NEEDS))
        yield from map_in_order(lambda shard: task.remote(recipe, shard), wait, shards, limit)


@dataclass(frozen=True)
class _Recipe:
    """How a worker of Ray makes the function that it applies to shards.

    Attributes:
        key: name of the function, for the worker to recognize it.
        build: makes the function.
        versions: versions that the driver expects; a node may have joined the cluster late.
        shared: reference to the argument of `build`. Each node fetches it once.
    """

    key: str
    build: Callable[[Any], Callable[[Any], Any]]
    versions: Mapping[str, str]
    shared: Any


_functions: dict[str, Callable[[Any], Any]] = {}
"""The function that this worker made last."""


def _run(recipe: _Recipe, shard: Any) -> Any:
    """Apply the function to a shard; runs on a node of the cluster."""
    import ray

    if recipe.key not in _functions:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # a task declares one core
        require_versions(recipe.versions)
        _functions.clear()
        _functions[recipe.key] = recipe.build(ray.get(recipe.shared))
    return _functions[recipe.key](shard)

"""A real Ray cluster of several nodes on this machine, for benchmarks and tests."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import psutil

STORE_BYTES = 200_000_000
"""Object store of each node; its memory is reserved in /dev/shm as it is used."""

HOST = "127.0.0.2"
"""Loopback. Ray would replace 127.0.0.1 by an address that other machines reach."""

POLL_SECONDS = 0.2

TRAINING = "ray::train_on_node"
"""Name of a process while it trains a trial."""

# Both are read when a node starts. By default, tasks have a lower priority than all other processes.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_worker_niceness", "0")


class LoopbackCluster:
    """Nodes on loopback, each with its own processes and object store, as on machines of their own.

    The head node has no CPUs to run tasks on, so that every other node can be killed.
    """

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 0,
                "object_store_memory": STORE_BYTES,
                "include_dashboard": False,
                "node_ip_address": HOST,
            },
        )

    @property
    def address(self) -> str:
        """Host and port of the head node: a value of RAY_ADDRESS."""
        return str(self._cluster.address)

    def add(self, cpus: int = 1, env: Mapping[str, str] | None = None, **arguments: Any) -> Any:
        """Start a node and wait until it has joined; return its handle.

        Args:
            cpus: number of tasks with one CPU that it runs at the same time.
            env: additional environment variables of its processes.
            arguments: other arguments of Ray's `Cluster.add_node`.
        """
        return self._cluster.add_node(
            num_cpus=cpus,
            object_store_memory=STORE_BYTES,
            node_ip_address=HOST,
            env_vars=dict(env or {}),
            **arguments,
        )

    def kill(self, node: Any) -> None:
        """Kill all processes of a node with SIGKILL; its workers exit when they miss it."""
        self._cluster.remove_node(node, allow_graceful=False)

    def find_busy(self) -> list[Any]:
        """Return the nodes that run a training of a search at present, after a pause: callers poll."""
        time.sleep(POLL_SECONDS)
        return [node for node in self._cluster.worker_nodes if _list_trainings(node)]

    def stop(self) -> None:
        """End the processes of all nodes."""
        self._cluster.shutdown()


def _list_trainings(node: Any) -> list[psutil.Process]:
    """Return the processes of a node that run a training; Ray names a process after its task."""
    found = []
    for raylet in node.all_processes["raylet"]:
        with suppress(psutil.NoSuchProcess):
            children = psutil.Process(raylet.process.pid).children()
            found += [child for child in children if child.cmdline()[:1] == [TRAINING]]
    return found


@contextmanager
def loopback_cluster(*cpus: int) -> Iterator[LoopbackCluster]:
    """Start a head node and a node for each number of CPUs; end them with the block."""
    cluster = LoopbackCluster()
    try:
        for count in cpus:
            cluster.add(count)
        yield cluster
    finally:
        cluster.stop()

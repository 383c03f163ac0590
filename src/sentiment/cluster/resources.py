"""What tasks need of a node of a Ray cluster, and what the nodes have."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sentiment.errors import UserError
from sentiment.settings import Settings

GIGABYTE = 10**9


@dataclass(frozen=True)
class Needs:
    """What one task needs of a node. Ray does not start it where less is free."""

    cpus: float = 1
    gpus: float = 0
    memory: int = 0
    """Bytes of memory; 0 declares none."""

    def to_options(self) -> dict[str, Any]:
        """Return the options of `ray.remote` that declare these needs."""
        return {"num_cpus": self.cpus, "num_gpus": self.gpus, "memory": self.memory or None}

    def __str__(self) -> str:
        return _describe_resources(self.cpus, self.gpus, self.memory)


@dataclass(frozen=True)
class Node:
    """A node of the cluster that is alive, with all its resources, whether they are in use or not."""

    id: str
    address: str
    cpus: float
    gpus: float
    memory: int
    """Bytes."""

    def count_slots(self, needs: Needs) -> int:
        """Return the number of tasks with these needs that fit on the node at the same time."""
        pairs = ((self.cpus, needs.cpus), (self.gpus, needs.gpus), (self.memory, needs.memory))
        fitting = [int(available // needed) for available, needed in pairs if needed]
        return min(fitting, default=1)

    def __str__(self) -> str:
        return f"{self.address} has {_describe_resources(self.cpus, self.gpus, self.memory)}"


def read_task_memory(settings: Settings) -> int:
    """Return the bytes of memory that a task declares (`RAY_TASK_MEMORY_GB`); 0 if it declares none."""
    return int((settings.ray_task_memory_gb or 0) * GIGABYTE)


def list_nodes() -> list[Node]:
    """List the nodes that are alive at present. This process must be connected."""
    import ray

    return [
        Node(
            node["NodeID"],
            node["NodeManagerAddress"],
            node["Resources"].get("CPU", 0.0),
            node["Resources"].get("GPU", 0.0),
            int(node["Resources"].get("memory", 0)),
        )
        for node in ray.nodes()
        if node["Alive"]
    ]


def require_resources(nodes: Sequence[Node], needs: Needs, what: str) -> list[Node]:
    """Return the nodes that can run a task.

    Args:
        nodes: nodes of the cluster.
        needs: what the task needs.
        what: the task in messages, such as "a trial".

    Raises:
        UserError: there is none.
    """
    suitable = [node for node in nodes if node.count_slots(needs)]
    if not suitable:
        listing = "; ".join(sorted(map(str, nodes)))
        raise UserError(
            f"Ray: {what} needs {needs}, and no node of the cluster has that much: {listing}. Add a larger "
            "node or require less: tune.threads or train.threads sets the CPUs, RAY_TASK_MEMORY_GB the memory"
        )
    return suitable


def _describe_resources(cpus: float, gpus: float, memory: int) -> str:
    gpu = f", {gpus:g} GPU" if gpus else ""
    return f"{cpus:g} CPU{gpu}" + (f", {memory / GIGABYTE:.1f} GB of memory" if memory else "")

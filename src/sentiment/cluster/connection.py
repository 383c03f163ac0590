"""Connection to a Ray cluster, with all checks that can be made before any work starts.

Ray is an optional extra. It is imported only where a cluster is requested (`RAY_ADDRESS`), never on the way
of a run on one machine.
"""

import importlib
import logging
import signal
import socket
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec

from sentiment.cluster.resources import Needs, Node, list_nodes, require_resources
from sentiment.cluster.versions import SAME_VERSIONS, collect_versions, describe_differences
from sentiment.errors import UserError
from sentiment.settings import Settings, load_settings

MAX_PORT = 65_535
CONNECT_SECONDS = 10
"""Time limit for an answer from the address of a cluster. Ray itself waits up to a minute."""

PROBE_SECONDS = 120
"""Time limit for all nodes to report their versions; a node whose disk is cold imports for half a minute."""


@dataclass(frozen=True)
class Cluster:
    """The cluster that this process is connected to.

    Attributes:
        address: host and port of its head node.
        driver_node: id of the node that this process runs on.
        versions: versions of code and packages, equal on all nodes that tasks may run on.
    """

    address: str
    driver_node: str
    versions: Mapping[str, str] = field(default_factory=dict)

    def list_nodes(self) -> list[Node]:
        """List the nodes that are alive at present."""
        return list_nodes()

    def count_slots(self, needs: Needs) -> int:
        """Return how many tasks with these needs fit on the nodes that are alive at present."""
        return sum(node.count_slots(needs) for node in list_nodes())


@contextmanager
def connect(
    needs: Needs, what: str, *, settings: Settings | None = None, log_to_driver: bool = False
) -> Iterator[Cluster]:
    """Connect this process as a driver to the cluster in `RAY_ADDRESS` until the block ends.

    All checks are made first: that Ray is installed and listens at the address, that a node has what a task
    needs, that code and packages of these nodes are equal to those of this process, and that each of them
    can write to the checkpoint store, if one is set. When the block ends or this process dies, Ray ends the
    tasks.

    Args:
        needs: what one task needs.
        what: the task in messages, such as "a trial".
        settings: settings of this machine; by default they are loaded.
        log_to_driver: show what tasks write to standard error.

    Raises:
        UserError: a check failed; the message names a remedy.
    """
    settings = settings or load_settings()
    ray = _import_ray()
    address = _find_cluster(settings.ray_address or "auto")
    _initialize(address, log_to_driver)
    try:
        nodes = require_resources(list_nodes(), needs, what)
        checkpoints = settings.ray_checkpoints.get_secret_value() if settings.ray_checkpoints else None
        if checkpoints:
            require_writable(checkpoints)
        versions = collect_versions()
        _probe(nodes, versions, checkpoints)
        yield Cluster(address, ray.get_runtime_context().get_node_id(), versions)
    finally:
        ray.shutdown()


def require_writable(checkpoints: str) -> None:
    """Write, read and delete a small file in the checkpoint store.

    Args:
        checkpoints: address of the store in fsspec's form. It may contain a password, so no message names it.

    Raises:
        UserError: the store cannot be opened or written to.
    """
    if "://" not in checkpoints and not Path(checkpoints).is_absolute():
        raise UserError("RAY_CHECKPOINTS: not an absolute address, such as file:///shared/checkpoints")
    if checkpoints.startswith("memory://"):
        raise UserError("RAY_CHECKPOINTS: memory:// is the memory of one process, which others cannot read")
    content = uuid.uuid4().hex.encode()
    try:
        filesystem, folder = fsspec.core.url_to_fs(checkpoints)
        path = f"{folder.rstrip('/')}/probe-{content.decode()}"
        filesystem.makedirs(folder, exist_ok=True)
        filesystem.pipe_file(path, content)
        found = filesystem.cat_file(path)
        filesystem.rm_file(path)
    except Exception as error:  # each file system of fsspec has exceptions of its own
        cause = f"{type(error).__name__}: {error}".replace(checkpoints, "the address")
        raise UserError(
            f"RAY_CHECKPOINTS: node {socket.gethostname()} cannot write to the checkpoint store: {cause}"
        ) from None
    if found != content:
        raise UserError("RAY_CHECKPOINTS: the checkpoint store returns other bytes than were written to it")


def _import_ray() -> Any:
    try:
        import ray
    except ImportError:
        raise UserError(
            "RAY_ADDRESS is set, but Ray is not installed: run `make setup-ray`, or unset RAY_ADDRESS to run "
            "on this machine alone"
        ) from None
    return ray


def _find_cluster(requested: str) -> str:
    """Return the host and port of a cluster, at which a server of Ray answers.

    Raises:
        UserError: the address is invalid, or no Ray answers within `CONNECT_SECONDS`.
    """
    from ray._private.services import canonicalize_bootstrap_address

    if requested == "local" or "://" in requested:
        raise UserError(
            f"RAY_ADDRESS: {requested}: expected HOST:PORT of the head node, or auto on a node of the "
            "cluster; the driver runs on a node, not through Ray's client"
        )
    try:
        address = canonicalize_bootstrap_address(requested)
    except ConnectionError:
        raise UserError(
            "RAY_ADDRESS: auto: no Ray runs on this machine; start it with `ray start --head`, or with "
            "`ray start --address HOST:PORT` to join a cluster"
        ) from None
    except (ValueError, OSError) as error:
        raise UserError(f"RAY_ADDRESS: {requested}: {error}; expected HOST:PORT or auto") from None
    host, _, port = str(address).rpartition(":")
    if not (port.isascii() and port.isdigit() and 0 < int(port) <= MAX_PORT):
        raise UserError(
            f"RAY_ADDRESS: {requested}: expected HOST:PORT, with a port of 1 to {MAX_PORT}, or auto"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except OSError as error:
        raise UserError(
            f"RAY_ADDRESS: nothing listens at {requested} ({error}); start Ray there with `ray start "
            "--head`, or correct the address"
        ) from None
    _require_ray(address)
    return str(address)


def _require_ray(address: str) -> None:
    """Raise a UserError unless the server at an address is one of Ray."""
    raylet: Any = importlib.import_module("ray._raylet")

    answered = threading.Event()

    def ask() -> None:
        with suppress(Exception):
            raylet.GcsClient(address=address)
            answered.set()

    threading.Thread(target=ask, daemon=True).start()  # Ray's client retries for 40 s
    if not answered.wait(CONNECT_SECONDS):
        raise UserError(
            f"RAY_ADDRESS: no Ray answers at {address} within {CONNECT_SECONDS} s, although a program "
            "listens there; `ray status` on the head node prints the address; if the cluster has tokens, set "
            "RAY_AUTH_MODE and RAY_AUTH_TOKEN"
        )


def _initialize(address: str, log_to_driver: bool) -> None:
    import ray

    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address, namespace="sentiment", log_to_driver=log_to_driver, logging_level=logging.WARNING)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError, AssertionError) as error:
        ray.shutdown()
        text = " ".join(str(error).split())
        hint = (
            SAME_VERSIONS
            if "ersion mismatch" in text
            else f"this machine must be a node: `ray start --address {address}`, with `--num-cpus 0` if it "
            "shall not run tasks"
        )
        raise UserError(f"RAY_ADDRESS: cannot connect to Ray at {address}: {text}; {hint}") from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray installs a handler of its own


def _probe(nodes: Sequence[Node], expected: Mapping[str, str], checkpoints: str | None) -> None:
    """Compare the versions on all nodes with those of this process, and let each write to the store.

    Raises:
        UserError: a node differs, lacks the package, cannot write, or does not answer.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0)(_report_versions)
    reports = {}
    for node in nodes:
        pinned = task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False))
        reports[node] = pinned.remote(checkpoints)
    problems = []
    for node, report in reports.items():
        try:
            versions = ray.get(report, timeout=PROBE_SECONDS)
        except ray.exceptions.GetTimeoutError:
            problems.append(f"node {node.address}: no answer within {PROBE_SECONDS} s")
        except ray.exceptions.RayTaskError as error:
            cause = error.cause if isinstance(error.cause, UserError) else None
            last_line = str(error).strip().splitlines()[-1]
            problems.append(str(cause or f"node {node.address}: {last_line}; {SAME_VERSIONS}"))
        except ray.exceptions.RayError as error:
            if node.id in {alive.id for alive in list_nodes()}:
                problems.append(f"node {node.address}: {' '.join(str(error).split())}")
        else:
            if differences := describe_differences(expected, versions):
                problems.append(f"node {node.address}: {differences}; {SAME_VERSIONS}")
    if problems:
        raise UserError(
            "\n".join(["the nodes of the Ray cluster are not ready:", *(f"  {p}" for p in problems)])
        )


def _report_versions(checkpoints: str | None) -> dict[str, str]:
    """Check the store and return the versions of a node; runs on that node."""
    if checkpoints:
        require_writable(checkpoints)
    return collect_versions()

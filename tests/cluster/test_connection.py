"""The connection to a Ray cluster: what is wrong is reported before any work starts."""

import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.scale.nodes import HOST, LoopbackCluster, loopback_cluster
from sentiment import cluster
from sentiment.cluster.connection import CONNECT_SECONDS, connect
from sentiment.cluster.resources import Needs
from sentiment.errors import UserError
from sentiment.settings import Settings

ray = pytest.importorskip("ray", reason="Ray is not installed: make setup-ray")

ONE_CPU = Needs(cpus=1)


@pytest.fixture(scope="module")
def nodes() -> Iterator[LoopbackCluster]:
    """A cluster of one node with two CPUs, beside its head."""
    with loopback_cluster(2) as started:
        yield started


def _refuse(address: str, needs: Needs = ONE_CPU, **settings: str) -> str:
    """Require that no connection is made; return the message."""
    with (
        pytest.raises(UserError) as raised,
        connect(needs, "a trial", settings=Settings(ray_address=address, **settings)),  # type: ignore[arg-type]
    ):
        pass
    assert not ray.is_initialized()
    return str(raised.value)


def test_cluster_reports_its_slots(nodes: LoopbackCluster) -> None:
    with connect(ONE_CPU, "a trial", settings=Settings(ray_address=nodes.address)) as connected:
        assert connected.count_slots(ONE_CPU) == 2
        assert connected.count_slots(Needs(cpus=2)) == 1
        assert connected.driver_node in {node.id for node in connected.list_nodes()}
    assert not ray.is_initialized()


def test_address_where_nothing_listens() -> None:
    started = time.monotonic()
    assert "nothing listens at 127.0.0.1:1" in _refuse("127.0.0.1:1")
    assert time.monotonic() - started < CONNECT_SECONDS


def test_address_of_a_program_that_is_not_ray() -> None:
    with socket.create_server((HOST, 0)) as server:
        started = time.monotonic()
        assert "no Ray answers at" in _refuse(f"{HOST}:{server.getsockname()[1]}")
        assert time.monotonic() - started < CONNECT_SECONDS + 2


@pytest.mark.parametrize(
    "address",
    [
        "ray://127.0.0.1:10001",
        "local",
        "head",
        "127.0.0.1:http",
        "127.0.0.1:0",
        "127.0.0.1:71915",
        "127.0.0.1:²",
    ],
)
def test_invalid_address(address: str) -> None:
    assert "expected HOST:PORT" in _refuse(address)


def test_more_than_any_node_has(nodes: LoopbackCluster) -> None:
    message = _refuse(nodes.address, Needs(cpus=3))
    assert "a trial needs 3 CPU, and no node of the cluster has that much" in message
    assert f"{HOST} has 2 CPU" in message
    assert "a trial needs 1 CPU, 1 GPU" in _refuse(nodes.address, Needs(cpus=1, gpus=1))
    assert "1000000.0 GB of memory" in _refuse(nodes.address, Needs(cpus=1, memory=10**15))


def test_checkpoint_store_that_cannot_be_written(nodes: LoopbackCluster, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    message = _refuse(nodes.address, ray_checkpoints=f"file://{tmp_path}/file/secret")
    assert "RAY_CHECKPOINTS: node" in message
    assert "cannot write to the checkpoint store" in message
    assert "not an absolute address" in _refuse(nodes.address, ray_checkpoints="checkpoints")
    assert "cannot write" in _refuse(nodes.address, ray_checkpoints="nosuch://bucket/checkpoints")


def test_node_with_other_code(nodes: LoopbackCluster, tmp_path: Path) -> None:
    package = Path(cluster.__file__).parents[1]
    shutil.copytree(package, tmp_path / "sentiment", ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "sentiment/text.py").open("a") as file:
        file.write("# changed\n")
    node = nodes.add(1, {"PYTHONPATH": str(tmp_path)})
    try:
        message = _refuse(nodes.address)
    finally:
        nodes.kill(node)
    assert "the code of sentiment differs from that of the driver" in message
    assert "install the same commit" in message

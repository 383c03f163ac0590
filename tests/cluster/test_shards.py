"""Tokenization and prediction on a Ray cluster: the outputs of one machine, whatever happens to a node."""

import hashlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from bench.scale.nodes import LoopbackCluster, loopback_cluster
from bench.small import inherited
from sentiment.cluster.connection import Cluster, connect
from sentiment.data.parquet import ReviewStream, stream_reviews, write_reviews
from sentiment.errors import UserError
from sentiment.params.data import TokenizeParams
from sentiment.settings import Settings
from sentiment.shards.on_ray import NEEDS, OnRay
from sentiment.shards.shard_map import IN_PROCESS, ShardMap
from sentiment.tokens.encoding import ShardEncoder, encode_to_folder, iter_texts
from sentiment.tokens.vocabulary import train_tokenizer
from tests.project import Project

pytest.importorskip("ray", reason="Ray is not installed: make setup-ray")

REVIEWS = 4_000
WORD = TokenizeParams(kind="word", vocabulary_size=500, min_frequency=2, lowercase=True, oov_rate=1.0)


@pytest.fixture(scope="module")
def nodes() -> Iterator[LoopbackCluster]:
    """A cluster of two nodes with one CPU each, beside its head."""
    with loopback_cluster(1, 1) as started:
        yield started


@pytest.fixture(scope="module")
def connected(nodes: LoopbackCluster) -> Iterator[Cluster]:
    with connect(NEEDS, "a shard", settings=Settings(ray_address=nodes.address)) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def stream(reviews: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> ReviewStream:
    path = tmp_path_factory.mktemp("reviews") / "train.parquet"
    write_reviews(path, pa.concat_tables([reviews] * (REVIEWS // len(reviews))))
    return stream_reviews(path)


def _tokenize(stream: ReviewStream, folder: Path, shards: ShardMap) -> dict[str, str]:
    """Train a tokenizer and tokenize; return the digest of each file."""
    tokenizer = train_tokenizer(iter_texts(stream, "train"), WORD, shards)
    encode_to_folder(folder / "train", tokenizer, stream, "tokenize", shards)
    tokenizer.save(str(folder / "train" / "tokenizer.json"))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (folder / "train").iterdir()}


@pytest.mark.parametrize("count", [1, 4, 16])
def test_tokens_do_not_depend_on_the_shards(
    count: int, connected: Cluster, stream: ReviewStream, tmp_path: Path
) -> None:
    expected = _tokenize(stream, tmp_path / "here", IN_PROCESS)
    assert _tokenize(stream, tmp_path / "ray", OnRay(connected, REVIEWS // count)) == expected


class SlowEncoder(ShardEncoder):
    """Takes its time, so that a node dies in the middle of a shard."""

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Any:
        time.sleep(1)
        return super().__call__(batches)


def test_shards_of_a_killed_node_are_repeated(
    nodes: LoopbackCluster, connected: Cluster, stream: ReviewStream
) -> None:
    tokenizer = train_tokenizer(iter_texts(stream, "train"), WORD).to_str()
    expected = [batch.ids.tobytes() for batch in IN_PROCESS.map(ShardEncoder, tokenizer, stream)]
    doomed = nodes.add(2)
    killing = threading.Timer(3, nodes.kill, [doomed])
    killing.start()
    results = OnRay(connected, 1).map(SlowEncoder, tokenizer, [*stream] * 3)
    assert [batch.ids.tobytes() for batch in results] == expected * 3
    killing.join()


class Refusing:
    """Raises for every shard."""

    def __init__(self, message: str) -> None:
        self.message = message

    def __call__(self, batches: Iterable[Any]) -> None:
        raise UserError(self.message)


def test_error_of_a_task_keeps_its_message(connected: Cluster) -> None:
    with pytest.raises(UserError, match=r"^row 7: no text$"):
        list(OnRay(connected).map(Refusing, "row 7: no text", [[1], [2]]))


def test_stage_and_command_have_the_outputs_of_one_machine(
    nodes: LoopbackCluster, project: Project, reviews: pa.Table
) -> None:
    """The stage writes what it wrote without a cluster, and the command prints the same for a large file."""
    tokens = [path for path in (project.root / "data/tokens").rglob("*") if path.is_file()]
    before = {path: path.read_bytes() for path in tokens}
    for path in tokens:
        path.unlink()
    project.stage("tokenize", RAY_ADDRESS=nodes.address)
    assert {path: path.read_bytes() for path in tokens} == before

    lines = "".join(f"{text * 20}\n" for text in reviews["text"].to_pylist())  # two windows
    assert len(lines) > 4_000_000, "a smaller file is predicted in the command's own process"
    (project.root / "reviews.txt").write_text(lines, encoding="utf-8")
    here, there = (_predict(project, **environment) for environment in ({}, {"RAY_ADDRESS": nodes.address}))
    assert here == there
    assert here.count(b"\n") == len(reviews)


def _predict(project: Project, **environment: str) -> bytes:
    with (project.root / "reviews.txt").open("rb") as file:
        done = subprocess.run(
            [str(Path(sys.executable).with_name("sentiment")), "predict"],
            cwd=project.root,
            stdin=file,
            env={**inherited(), **environment},
            capture_output=True,
            check=True,
            timeout=300,
        )
    return done.stdout

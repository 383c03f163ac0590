"""Tokenization and prediction over shards: equal bytes, and time and memory by the number of reviews.

The reviews are made from real ones (bench/resampling.py). Their words are those of 25,000 reviews, so the
memory of the vocabulary at 10⁸ reviews, which is extrapolated with the rest, is that of a language without
new words.
"""

import hashlib
import logging
import resource
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.bars import Bar
from bench.processes import in_fresh_process, peak_memory
from bench.resampling import write_resampled
from bench.scale.nodes import loopback_cluster
from sentiment.cluster.connection import connect
from sentiment.data.parquet import stream_reviews
from sentiment.params import load_params
from sentiment.settings import Settings
from sentiment.shards.on_ray import NEEDS, OnRay
from sentiment.shards.processes import Processes
from sentiment.shards.shard_map import SHARDS_PER_WORKER, InProcess, ShardMap
from sentiment.tokens.encoding import encode_to_folder, iter_texts
from sentiment.tokens.vocabulary import train_tokenizer

logger = logging.getLogger(__name__)

COMPARED = 8_000
"""Reviews of the comparison of bytes."""
COUNTS = (1, 4, 16)
"""Numbers of shards."""
SIZES = (10_000, 100_000, 1_000_000)
WORKERS = 2
LINEAR_BAR = 0.15
"""Largest growth of the processor time per review from 100,000 reviews to a million; it falls with the start
of the processes, which is a smaller part of it."""
TARGET = 100_000_000
WORKER_COUNTS = (1, 2, 8, 32, 128)


@dataclass(frozen=True)
class Cost:
    """Cost of the stage tokenize without its start, for a number of reviews.

    Attributes:
        seconds: wall-clock time.
        driver: processor time of the process that reads, writes and merges, in seconds.
        workers: processor time of the processes that count words and tokenize, in seconds.
        driver_peak: largest resident set of the driver, in MB.
        worker_peak: largest resident set of a worker, in MB.
        text_bytes: bytes of text.
        token_bytes: bytes of token ids.
    """

    seconds: float
    driver: float
    workers: float
    driver_peak: float
    worker_peak: float
    text_bytes: int
    token_bytes: int


def shards_bars() -> list[Bar]:
    """Compare outputs by the number of shards and by where they run; measure up to a million reviews."""
    with tempfile.TemporaryDirectory(prefix="bench-shards-") as name:
        folder = Path(name)
        # In a process of its own, so that this one stays small: the measured ones take over its peak memory.
        return [*in_fresh_process(_equality_bars, folder), *_linear_bars(folder)]


def _equality_bars(folder: Path) -> list[Bar]:
    path = folder / "compared.parquet"
    in_fresh_process(write_resampled, path, COMPARED)
    digests: dict[str, str] = {}
    for count in COUNTS:
        rows = -(-COMPARED // count)
        digests[f"in process, {count}"] = _digest(folder, path, InProcess(rows))
        digests[f"{WORKERS} processes, {count}"] = _digest(folder, path, Processes(WORKERS, rows))
    with loopback_cluster(1, 1) as nodes, connect(NEEDS, "a shard", settings=_settings(nodes.address)) as ray:
        for count in COUNTS:
            digests[f"2 Ray nodes, {count}"] = _digest(folder, path, OnRay(ray, -(-COMPARED // count)))
    print("\n| tokenize: where, shards | MD5 of the tokenizer and the arrays |\n| --- | --- |")
    for name, digest in digests.items():
        print(f"| {name} | {digest} |")
    different = len(set(digests.values())) - 1
    what = f"tokenize by {', '.join(map(str, COUNTS))} shards in process, in processes, on Ray: other bytes"
    return [Bar(what, str(different), "0", different == 0)]


def _settings(address: str) -> Settings:
    return Settings(ray_address=address)


def _digest(folder: Path, path: Path, shards: ShardMap) -> str:
    """Return the digest of all that the stage tokenize writes of one split."""
    _tokenize(path, folder / "tokens", shards)
    digest = hashlib.md5(usedforsecurity=False)
    for file in sorted((folder / "tokens").iterdir()):
        digest.update(file.name.encode() + file.read_bytes())
    digest.update((folder / "tokenizer.json").read_bytes())
    return digest.hexdigest()


def _tokenize(path: Path, target: Path, shards: ShardMap) -> int:
    """Do the work of stages/tokenize.py on one split; return the number of tokens."""
    params, reviews = load_params().tokenize, stream_reviews(path)
    tokenizer = train_tokenizer(iter_texts(reviews, "train tokenizer"), params, shards)
    target.with_name("tokenizer.json").write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
    return int(encode_to_folder(target, tokenizer, reviews, "tokenize", shards)["tokens"])


def _linear_bars(folder: Path) -> list[Bar]:
    costs = {}
    for size in SIZES:
        path = folder / f"{size}.parquet"
        in_fresh_process(write_resampled, path, size)
        logger.info(f"tokenize {size:,} reviews in {WORKERS} processes")
        costs[size] = in_fresh_process(_measure, path)
        path.unlink()
    _print_costs(costs)
    _print_extrapolation(costs[max(SIZES)], max(SIZES))
    large = {size: cost for size, cost in costs.items() if size > min(SIZES)}
    per_review = [1e6 * (cost.driver + cost.workers) / size for size, cost in large.items()]
    growth = per_review[-1] / per_review[0] - 1
    sizes = " to ".join(f"{size:,}" for size in large)
    return [
        Bar(
            f"tokenize {sizes} reviews: growth of the processor time per review",
            f"{growth:+.1%}",
            f"≤ {LINEAR_BAR:.0%}",
            growth <= LINEAR_BAR,
        )
    ]


def _measure(path: Path) -> Cost:
    """Tokenize the reviews of a file; runs in a process of its own."""
    text_bytes = sum(batch["text"].nbytes for batch in stream_reviews(path))
    start, start_driver = time.perf_counter(), time.process_time()
    tokens = _tokenize(path, path.with_name("tokens"), Processes(WORKERS))
    seconds, driver = time.perf_counter() - start, time.process_time() - start_driver
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(
        seconds=seconds,
        driver=driver,
        workers=children.ru_utime + children.ru_stime,
        driver_peak=peak_memory(),
        worker_peak=children.ru_maxrss * 1024 / 1e6,
        text_bytes=text_bytes,
        token_bytes=4 * tokens,
    )


def _print_costs(costs: Mapping[int, Cost]) -> None:
    print("\n| reviews | wall-clock, s | reviews/s | driver, CPU µs per review ", end="")
    print("| workers, CPU µs per review | driver's peak, MB | a worker's peak, MB |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for size, cost in costs.items():
        print(
            f"| {size:,} | {cost.seconds:.1f} | {size / cost.seconds:,.0f} | {1e6 * cost.driver / size:.1f} "
            f"| {1e6 * cost.workers / size:.0f} | {cost.driver_peak:.0f} | {cost.worker_peak:.0f} |"
        )


def _print_extrapolation(cost: Cost, size: int) -> None:
    """Print what `TARGET` reviews would take by the number of workers, each with a core of its own.

    The driver reads, writes and merges while the workers work: the slower of the two sets the time.
    """
    scale = TARGET / size
    texts, tokens = scale * cost.text_bytes, scale * cost.token_bytes
    volume = f"{texts / 1e9:.0f} GB of text, {tokens / 1e9:.0f} GB of token ids"
    print(f"\n{TARGET:,} reviews, extrapolated: {volume}")
    print("\n| workers | hours | limited by | shards in the object store, GB |\n| --- | --- | --- | --- |")
    for workers in WORKER_COUNTS:
        hours = scale * max(cost.driver, cost.workers / workers) / 3600
        limit = "driver" if cost.driver > cost.workers / workers else "workers"
        print(f"| {workers} | {hours:.1f} | {limit} | {_store_bytes(cost, size, workers) / 1e9:.2f} |")


def _store_bytes(cost: Cost, size: int, workers: int) -> float:
    """Return the bytes of the shards and results that are in the object store at the same time."""
    rows = SHARDS_PER_WORKER * workers * OnRay.shard_rows
    return rows * (cost.text_bytes + cost.token_bytes) / size

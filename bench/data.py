"""Speed and peak memory of the stages download and tokenize, from ten thousand reviews to a million.

Reviews are made from the real ones (bench/resampling.py) and come in as one Parquet file. Each stage does its
work on each size in a fresh process, whose largest resident set is what the table shows. Encoding is held
against the bare library on 10,000 texts in memory, in one process and in turns: a machine is not equally fast
all the time.
"""

import argparse
import logging
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.bars import Bar, at_least, report_bars
from bench.processes import in_fresh_process, peak_memory, seconds_of
from bench.resampling import write_resampled
from sentiment.data.build import build_splits
from sentiment.data.parquet import read_reviews, stream_reviews
from sentiment.errors import exits_cleanly
from sentiment.params import load_params
from sentiment.params.data import DownloadParams
from sentiment.tokens.encoding import encode_to_folder, iter_texts
from sentiment.tokens.vocabulary import train_tokenizer

logger = logging.getLogger(__name__)


DOWNLOAD, CHECKED = "download", "download, near-duplicates"
"""The stage without and with the search for near-duplicates of test reviews."""

SIZES = (10_000, 100_000, 1_000_000)
COMPARED = 10_000
"""Reviews that are encoded alternately with and without this project's code."""
TURNS = 7
BARE_BATCHES = (256, 1024, 4096, COMPARED)
"""Batch sizes that the bare library is tried with; the fastest one is compared."""

LARGE = 100_000
"""Number of reviews from which the bars on memory apply."""
PEAK_BAR_MB = 1000
GROWTH_BAR = 0.15
CHECK_BAR = 1.5
"""Largest ratio of download's time with and without the search for near-duplicates of test reviews."""
RATIO_BAR = 0.7


@dataclass(frozen=True)
class Cost:
    """Cost of a stage: wall-clock and processor seconds, peak memory in MB, tokens written."""

    seconds: float
    processor_seconds: float
    peak: float
    tokens: int = 0


@exits_cleanly
def main(sizes: Sequence[int]) -> None:
    """Measure, print a table of measurements and one of bars; exit with 1 if a bar is missed."""
    costs: dict[tuple[str, int], Cost] = {}
    with tempfile.TemporaryDirectory(prefix="bench-data-") as folder:
        ratios = in_fresh_process(_compare, Path(folder))
        for size in sizes:
            path = _made(Path(folder), size)
            for stage, work in (
                (DOWNLOAD, _download),
                (CHECKED, _download_checked),
                ("tokenize", _tokenize),
            ):
                logger.info(f"{stage} {size:,}")
                costs[stage, size] = in_fresh_process(work, path)
    print("| stage | reviews | wall-clock, s | CPU, s | reviews/s | tokens/s | peak RSS, MB |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for (stage, size), cost in costs.items():
        tokens = f"{cost.tokens / cost.seconds:,.0f}" if cost.tokens else ""
        speed = f"{size / cost.seconds:,.0f}"
        print(
            f"| {stage} | {size:,} | {cost.seconds:.1f} | {cost.processor_seconds:.1f} | {speed} | {tokens} "
            f"| {cost.peak:.0f} |"
        )
    bars = [at_least("encoding, share of the bare library's speed", ratios, RATIO_BAR)]
    large = [size for size in sizes if size >= LARGE]
    for stage in (DOWNLOAD, CHECKED, "tokenize"):
        bars += _peak_bars(stage, {size: costs[stage, size].peak for size in large})
    for stage in (DOWNLOAD, "tokenize"):
        bars += _growth_bars(stage, [costs[stage, size].peak for size in large])
    for size in large:
        ratio = costs[CHECKED, size].processor_seconds / costs[DOWNLOAD, size].processor_seconds
        # In processor time: the two run one after the other, and the speed of a shared machine varies.
        what = f"near-duplicates at {size:,}: download's processor time, by that without"
        bars.append(Bar(what, f"{ratio:.2f}", f"≤ {CHECK_BAR:g}", ratio <= CHECK_BAR))
    raise SystemExit(report_bars(bars))


def _peak_bars(stage: str, peaks: dict[int, float]) -> list[Bar]:
    return [
        Bar(f"{stage}, peak at {size:,}, MB", f"{peak:.0f}", f"≤ {PEAK_BAR_MB}", peak <= PEAK_BAR_MB)
        for size, peak in peaks.items()
    ]


def _growth_bars(stage: str, peaks: Sequence[float]) -> list[Bar]:
    if len(peaks) < 2:
        return []
    growth = max(peaks) / min(peaks) - 1
    return [Bar(f"{stage}, peaks apart", f"{growth:.1%}", f"≤ {GROWTH_BAR:.0%}", growth <= GROWTH_BAR)]


def _made(folder: Path, size: int) -> Path:
    """Generate reviews and return their file; files of other sizes in the folder are deleted."""
    for other in folder.glob("*.parquet"):
        other.unlink()
    path = folder / f"{size}.parquet"
    logger.info(f"making {size:,} reviews")
    # In another process, so that this one stays small.
    in_fresh_process(write_resampled, path, size)
    return path


def _download(path: Path) -> Cost:
    """Do the work of stages/download.py with the generated file as the only source; no near-duplicates."""
    return _gathered(path, near_duplicates=None)


def _download_checked(path: Path) -> Cost:
    """Do the work of stages/download.py with the generated file as the only source."""
    return _gathered(path)


def _gathered(path: Path, **changed: Any) -> Cost:
    content = load_params().download.model_dump()
    source = {"kind": "files", "name": "made", "paths": [str(path)], "labels": {"0": 0, "1": 1}}
    source["columns"] = {"text": "text", "label": "label"}
    # Among a million generated reviews, a few short ones contain a sentence of the two with stray bytes.
    checks = {**content["checks"], "bad_rows": "quarantine", **changed}
    params = DownloadParams.model_validate({**content, "sources": [source], "checks": checks})
    os.chdir(path.parent)
    start, processor_start = time.perf_counter(), time.process_time()
    build_splits(params)
    return Cost(time.perf_counter() - start, time.process_time() - processor_start, peak_memory())


def _tokenize(path: Path) -> Cost:
    """Do the work of stages/tokenize.py on one split."""
    start, processor_start = time.perf_counter(), time.process_time()
    reviews = stream_reviews(path)
    tokenizer = train_tokenizer(iter_texts(reviews, f"learn from {path.stem}"), load_params().tokenize)
    metrics = encode_to_folder(path.with_name("tokens"), tokenizer, reviews, f"tokenize {path.stem}")
    return Cost(
        time.perf_counter() - start, time.process_time() - processor_start, peak_memory(), metrics["tokens"]
    )


def _compare(folder: Path) -> list[float]:
    """Return, for each turn, the speed from Parquet to token files as a share of the bare library's."""
    path = folder / "compared.parquet"
    write_resampled(path, COMPARED)
    held = read_reviews(path)["text"].to_pylist()
    tokenizer = train_tokenizer(held, load_params().tokenize)

    def bare(size: int) -> list[list[int]]:
        slices = (held[start : start + size] for start in range(0, len(held), size))
        return [
            encoding.ids
            for part in slices
            for encoding in tokenizer.encode_batch_fast(part, add_special_tokens=False)
        ]

    def whole() -> None:
        encode_to_folder(folder / "tokens", tokenizer, stream_reviews(path), "tokenize")

    whole()  # the first call reads the file from the disk
    best = min(BARE_BATCHES, key=lambda size: min(seconds_of(lambda: bare(size)) for _ in range(2)))
    logger.info(f"the bare library is fastest with {best:,} texts a batch")
    return [seconds_of(lambda: bare(best)) / seconds_of(whole) for _ in range(TURNS)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sizes", nargs="*", type=int, default=SIZES, help="numbers of reviews")
    main(parser.parse_args().sizes)

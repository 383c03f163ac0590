"""One part of the measurement, in its own process: `python -m bench.gpu.part NAME …`."""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from bench.gpu import equality, predict, quality, speed
from bench.gpu.context import Bench
from bench.gpu.packed import Pack
from sentiment.logs import configure_logging

PARTS: dict[str, Callable[[Bench], None]] = {
    "equality": equality.measure,
    "speed": speed.measure,
    "predict": predict.measure,
    "quality": quality.measure,
}

if __name__ == "__main__":
    configure_logging()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--smoke", action="store_true")
    given = parser.parse_args()
    bench = Bench(
        Pack.open(given.pack, smoke=given.smoke),
        "cpu" if given.smoke else "cuda",
        given.folder,
        given.rows,
        time.monotonic() + given.seconds,
    )
    with bench.guarded(f"part {given.part}"):
        PARTS[given.part](bench)

"""Beyond one machine: equal results whatever runs the work, what more machines gain, and the limits.

- tune: a search in one process, in two, on one and on three Ray nodes, and after five kills: equal bytes.
- overhead: time of a trial on Ray beside that in processes, and two Ray nodes beside one.
- ranks: data-parallel training: speed of two ranks, and the difference of their weights from those of one.
- shards: tokenization and prediction by shards: equal bytes; time and memory up to 10⁶ reviews.
- simulated: searches with 8, 64 and 512 workers, simulated from recorded trials and measured costs.

`--parts shards` runs this part alone. Parts that start a Ray cluster need `make setup-ray`.
"""

import argparse
from collections.abc import Callable, Sequence

from bench.bars import Bar, report_bars
from bench.scale.ranks import ranks_bars
from bench.scale.shards import shards_bars
from bench.scale.simulated import simulated_bars
from bench.scale.tuning import overhead_bars, tune_bars
from sentiment.errors import exits_cleanly

PARTS: dict[str, Callable[[], list[Bar]]] = {
    "tune": tune_bars,
    "overhead": overhead_bars,
    "ranks": ranks_bars,
    "shards": shards_bars,
    "simulated": simulated_bars,
}
"""Part by name: measures, prints its tables, and returns its bars."""


@exits_cleanly
def main(parts: Sequence[str]) -> None:
    """Run the parts and print their bars; exit with 1 if a bar is missed."""
    raise SystemExit(report_bars([bar for part in parts for bar in PARTS[part]()]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    main(parser.parse_args().parts)

"""Beyond one machine: equal results whatever runs the work, what more machines gain, and the limits.

- tune: a search in one process, in two, on one and on three Ray nodes, and after five kills: equal bytes.
- overhead: time of a trial on Ray beside that in processes, and two Ray nodes beside one.
- ranks: data-parallel training: speed of two ranks, and the difference of their weights from those of one.
- shards: tokenization and prediction by shards: equal bytes; time and memory up to 10⁶ reviews.
- simulated: searches with 8, 64 and 512 workers, simulated from recorded trials and measured costs.

`--parts shards` runs this part alone. Parts that start a Ray cluster need `make setup-ray`.
"""

from collections.abc import Callable

from bench.bars import Bar, run_parts
from bench.scale.ranks import ranks_bars
from bench.scale.shards import shards_bars
from bench.scale.simulated import simulated_bars
from bench.scale.tuning import overhead_bars, tune_bars

PARTS: dict[str, Callable[[], list[Bar]]] = {
    "tune": tune_bars,
    "overhead": overhead_bars,
    "ranks": ranks_bars,
    "shards": shards_bars,
    "simulated": simulated_bars,
}


if __name__ == "__main__":
    run_parts(PARTS, __doc__)

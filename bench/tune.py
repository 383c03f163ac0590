"""Searches that are killed or shared by workers, and their cost beside bare training.

- kills: 12 trials by two workers, killed at 20 random moments and restarted each time; the final state.
- workers: the same trials by one worker and by two, seconds.
- overhead: share of a search that is not training.
- pruning: training steps that the pruner of params.yaml saves, and what that costs.
- gain: what the last `dvc repro` gained over params.yaml as it was; read from its results, not trained again.

Needs the outputs of the stages download and tokenize, gain also those of tune; each other part takes all or
some of those reviews and works in a temporary folder.
"""

import argparse
from collections.abc import Callable, Sequence

from bench.bars import Bar, report_bars
from bench.tuning.gain import gain_bar
from bench.tuning.kills import kill_and_resume, kills_bar
from bench.tuning.overhead import overhead_bar
from bench.tuning.pruning import pruning_bars
from bench.tuning.workers import compare_workers
from sentiment.errors import exits_cleanly

REVIEWS = {"kills": 600, "workers": 4000, "overhead": None, "pruning": None, "gain": None}
SEED = 1


@exits_cleanly
def main(parts: Sequence[str], reviews: int | None, seed: int) -> None:
    """Measure, print tables; exit with 1 if a bar is missed."""
    measure: dict[str, Callable[[int | None], list[Bar]]] = {
        "kills": lambda count: [kills_bar(kill_and_resume(count, seed))],
        "workers": lambda count: [compare_workers(count)],
        "overhead": lambda count: [overhead_bar(count)],
        "pruning": pruning_bars,
        "gain": lambda _: [gain_bar()],
    }
    raise SystemExit(report_bars([bar for part in parts for bar in measure[part](reviews or REVIEWS[part])]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=REVIEWS, default=list(REVIEWS))
    parser.add_argument("--reviews", type=int, help="of each split, instead of each part's own number")
    parser.add_argument("--seed", type=int, default=SEED, help="of the moments of the kills")
    arguments = parser.parse_args()
    main(arguments.parts, arguments.reviews, arguments.seed)

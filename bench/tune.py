"""The search: equal results by any number of workers and after kills, and its cost.

- gain: what the last `dvc repro` gained over params.yaml as it was; read from its results, not trained again.
- winner: the model that the last `dvc repro` selected, compared with one that is trained with the default
  parameters before they were changed to shorten the search.
- equality: a search of 12 trials by 1, 2 and 3 workers, killed at 20 random moments, and interrupted; files
  that differ, and trials that are missing or twice in study and MLflow store.
- workers: the same trials by one worker and by two, wall time.
- pruning: training steps that the pruner of params.yaml saves, and what that costs.
- parallel: best AUC of simulated searches by `tune.max_parallel`, and what pruning saves and costs them.
- overhead: share of a search that is not training.
- default: wall time of the default `dvc repro --force` on two cores without bf16; not measured unless it is
  requested with `--parts default`.

Needs the outputs of the stages download and tokenize, gain also those of tune, winner those of evaluate, and
parallel none. The other parts take all or some of those reviews and work in a temporary folder.
"""

import argparse
from collections.abc import Callable, Sequence

from bench.bars import Bar, report_bars
from bench.tuning.default import default_bars
from bench.tuning.equality import equality_bars
from bench.tuning.gain import gain_bar
from bench.tuning.overhead import overhead_bar
from bench.tuning.parallel import parallel_bars
from bench.tuning.pruning import pruning_bars
from bench.tuning.winner import winner_bar
from bench.tuning.workers import workers_bars
from sentiment.errors import exits_cleanly

REVIEWS = {"equality": 400, "workers": 1500, "pruning": 4000}
"""Reviews of each split; the other parts take all."""
PARTS = ("gain", "winner", "equality", "workers", "pruning", "parallel", "overhead", "default")
"""In the order in which they run by default: those first that need all outputs of `dvc repro`."""
LONG_PARTS = ("default",)
SEED = 1


@exits_cleanly
def main(parts: Sequence[str], reviews: int | None, seed: int) -> None:
    """Measure, print tables; exit with 1 if a bar is missed."""
    measure: dict[str, Callable[[int | None], list[Bar]]] = {
        "gain": lambda _: [gain_bar()],
        "winner": lambda _: [winner_bar()],
        "equality": lambda count: equality_bars(count, seed),
        "workers": workers_bars,
        "pruning": pruning_bars,
        "parallel": lambda _: parallel_bars(),
        "overhead": lambda count: [overhead_bar(count)],
        "default": lambda _: default_bars(),
    }
    raise SystemExit(
        report_bars([bar for part in parts for bar in measure[part](reviews or REVIEWS.get(part))])
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    usual = [part for part in PARTS if part not in LONG_PARTS]
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=usual)
    parser.add_argument("--reviews", type=int, help="of each split, instead of each part's own number")
    parser.add_argument("--seed", type=int, default=SEED, help="of the moments of the kills")
    arguments = parser.parse_args()
    main(arguments.parts, arguments.reviews, arguments.seed)

"""Scheduled retraining, held to account.

- data: the data gate on batches of good reviews, and of reviews with faults, for a real champion.
- nothing_new: how long a retraining takes if nothing is new.
- kills: a retraining killed at random moments, compared with one that was not.
- gate: the model gate on small models, before and after good reviews and flipped labels arrive.
- year: simulated years of weekly retrainings without any true gain, through the rules of the model gate.

`--parts year` runs this part alone.
"""

from collections.abc import Callable

from bench.bars import Bar, run_parts
from bench.retrain.cycle import kill_bars, nothing_new_bars
from bench.retrain.data import data_bars
from bench.retrain.gate import gate_bars
from bench.retrain.year import year_bars

PARTS: dict[str, Callable[[], list[Bar]]] = {
    "data": data_bars,
    "nothing_new": nothing_new_bars,
    "kills": kill_bars,
    "gate": gate_bars,
    "year": year_bars,
}


if __name__ == "__main__":
    run_parts(PARTS, __doc__)

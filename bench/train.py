"""Training beside other ways to train an LSTM of the same size on the same reviews.

- speed: real (unpadded) tokens per second, by turns in one process; share of the time outside forward,
  backward and step.
- auc: seconds of training until the validation AUC reaches the target.
- memory: largest resident set of training on all labelled reviews.

Needs what the stages download and tokenize make. Bars are held against the median of the turns.
"""

import argparse
import logging
import statistics
from collections.abc import Sequence

from bench.bars import Bar, at_least, report_bars, spread
from bench.processes import in_fresh_process
from bench.training.memory import measure_memory
from bench.training.reaching import TARGET, Reached, keras_time, own_time, packed_time, padded_time
from bench.training.speed import KERAS, OWN, PACKED, PADDED, PRODUCTS, Turn, measure_speed
from bench.training.task import Changes
from sentiment.errors import exits_cleanly

logger = logging.getLogger(__name__)


PARTS = ("speed", "auc", "memory")
TURNS = 5
SPEED_BARS = {PACKED: 20, PADDED: 3, KERAS: 3, PRODUCTS: 0.5}
OUTSIDE_BAR = 0.08
SOONER_BAR = 3
LIMIT = 1.05 * SOONER_BAR
"""A peer is stopped after this multiple of the project's own seconds."""
MEMORY_BAR_MB = 1500


@exits_cleanly
def main(parts: Sequence[str], turns: int, target: float, changes: Changes) -> None:
    """Measure, print tables; exit with 1 if a bar is missed."""
    bars: list[Bar] = []
    if "speed" in parts:
        measured = measure_speed(turns, changes)
        _print_speed(measured)
        bars += speed_bars(measured)
    if "auc" in parts:
        bars.append(_sooner(target, changes))
    if "memory" in parts:
        count, peak = measure_memory(changes)
        holds = peak <= MEMORY_BAR_MB
        bars.append(Bar(f"peak memory, {count:,} reviews, MB", f"{peak:.0f}", f"≤ {MEMORY_BAR_MB}", holds))
    raise SystemExit(report_bars(bars))


def speed_bars(turns: Sequence[Turn]) -> list[Bar]:
    """Hold this project's speed against each other one, turn by turn, and its time outside the phases."""
    bars = [
        at_least(f"tokens/s, times {name}", [turn.rates[OWN] / turn.rates[name] for turn in turns], bar)
        for name, bar in SPEED_BARS.items()
    ]
    outside = [1 - turn.phases.seconds / turn.seconds for turn in turns]
    holds = statistics.median(outside) <= OUTSIDE_BAR
    name = "share of an epoch outside forward, backward and step"
    return [*bars, Bar(name, spread(outside), f"≤ {OUTSIDE_BAR}", holds)]


def sooner_bar(target: float, own: Reached, others: dict[str, Reached]) -> Bar:
    """Hold this project's seconds to the target against the quickest other one's, or its last seen."""
    name = f"seconds to validation AUC {target}, times sooner than the best"
    if not own.reached:
        return Bar(name, f"not reached: {own}", f"≥ {SOONER_BAR}", holds=False)
    best = min(others, key=lambda other: others[other].seconds)
    ratio = others[best].seconds / own.seconds
    sign = "" if others[best].reached else "> "
    value = f"{sign}{ratio:.2f} ({best}: {others[best]}; {OWN}: {own})"
    return Bar(name, value, f"≥ {SOONER_BAR}", ratio >= SOONER_BAR)


def _print_speed(turns: Sequence[Turn]) -> None:
    print("| tokens/s | median | lowest | highest |\n| --- | --- | --- | --- |")
    for name in turns[0].rates:
        rates = [turn.rates[name] for turn in turns]
        print(f"| {name} | {statistics.median(rates):,.0f} | {min(rates):,.0f} | {max(rates):,.0f} |")
    print("\n| part of an epoch | share |\n| --- | --- |")
    for phase in ("forward", "backward", "step"):
        share = statistics.median(getattr(turn.phases, phase) / turn.seconds for turn in turns)
        print(f"| {phase} | {share:.1%} |")


def _sooner(target: float, changes: Changes) -> Bar:
    own = in_fresh_process(own_time, target, changes)
    logger.info(f"{OWN}: {own}")
    if not own.reached:
        return sooner_bar(target, own, {})
    limit = LIMIT * own.seconds
    padded = in_fresh_process(padded_time, target, limit, changes)
    others = {
        PADDED: padded,
        PACKED: in_fresh_process(packed_time, padded, changes),
        KERAS: in_fresh_process(keras_time, target, limit, changes),
    }
    print(f"\n| to validation AUC {target} | training | steps |\n| --- | --- | --- |")
    for name, reached in {OWN: own, **others}.items():
        print(f"| {name} | {reached} | {reached.steps:,} |")
    return sooner_bar(target, own, others)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--turns", type=int, default=TURNS, help="turns of the part speed")
    parser.add_argument("--target", type=float, default=TARGET, help="validation AUC of the part auc")
    parser.add_argument("--reviews", type=int, help="fewer than all, for a try")
    parser.add_argument("--hidden-units", type=int, help="instead of params.yaml's")
    arguments = parser.parse_args()
    changes = Changes(arguments.reviews, arguments.hidden_units)
    main(arguments.parts, arguments.turns, arguments.target, changes)

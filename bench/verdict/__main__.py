"""The verdict on two models, held to account by simulation.

- null: two equal models, made from the two of the last `dvc repro`, with the selection of a finalist.
- power: true gains of 0.002, 0.005 and 0.01 on 1,000, 5,000 and 25,000 reviews; prints the table of
  docs/evaluation.md.
- flipped: small models trained with 10% flipped labels, against the same with the right ones.

`--parts null power` runs these parts alone.
"""

import argparse
from collections.abc import Sequence

from bench.bars import Bar, report_bars
from bench.verdict.flipped_labels import flipped_labels_bar
from bench.verdict.null import null_bars
from bench.verdict.power import power_bars
from bench.verdict.scores import predict_scores
from sentiment.errors import exits_cleanly
from sentiment.params import load_params

PARTS = ("null", "power", "flipped")


@exits_cleanly
def main(parts: Sequence[str]) -> None:
    """Run the parts and print their bars; exit with 1 if a bar is missed."""
    params = load_params().evaluate
    bars: list[Bar] = []
    if {"null", "power"} & set(parts):
        scores = predict_scores()
        for part, make_bars in (("null", null_bars), ("power", power_bars)):
            if part in parts:
                bars += make_bars(scores, params.confidence_level, params.margin)
    if "flipped" in parts:
        bars.append(flipped_labels_bar())
    raise SystemExit(report_bars(bars))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    main(parser.parse_args().parts)

"""The search's winner beside params.yaml as it stood before the search."""

import json

from bench.bars import Bar
from sentiment import paths
from sentiment.errors import UserError


def gain_bar() -> Bar:
    """Tell whether the last search found anything better on validation; either is an answer."""
    path = paths.metrics("tune")
    if not path.is_file():
        raise UserError(f"{path}: no such file; `dvc repro` makes it")
    figures = json.loads(path.read_bytes())
    winner, gain = figures["best"]["trial"], figures["gain_over_trial_0"]
    if winner == 0 or gain is None:
        told = "trial 0 won: params.yaml stays the best known" if winner == 0 else "trial 0 did not finish"
    else:
        interval = gain["interval"]
        ends = f" ({interval['low']:+.4f} to {interval['high']:+.4f})" if interval else ""
        told = f"trial {winner}: {gain['auc']:+.4f}{ends}"
    return Bar("validation AUC over params.yaml before the search", told, "better, or told", holds=True)

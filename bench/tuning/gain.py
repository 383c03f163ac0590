"""The search's winner beside params.yaml as it stood before the search."""

import json

from bench.bars import Bar
from sentiment import paths
from sentiment.errors import UserError


def gain_bar() -> Bar:
    """Report whether the last search improved validation AUC; both outcomes are valid."""
    path = paths.metrics("tune")
    if not path.is_file():
        raise UserError(f"{path}: no such file; `dvc repro` writes it")
    metrics = json.loads(path.read_bytes())
    winner, gain = metrics["best"]["trial"], metrics["gain_over_trial_0"]
    if winner == 0 or gain is None:
        outcome = "trial 0 won: params.yaml stays the best known" if winner == 0 else "trial 0 did not finish"
    else:
        interval = gain["interval"]
        ends = f" ({interval['low']:+.4f} to {interval['high']:+.4f})" if interval else ""
        outcome = f"trial {winner}: {gain['auc']:+.4f}{ends}"
    return Bar(
        "validation AUC over params.yaml before the search",
        outcome,
        "better, or reported",
        holds=True,
    )

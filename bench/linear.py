"""Linear baselines for the LSTM, on the split of the pipeline's last run."""

import json
from typing import Any

from sklearn.pipeline import Pipeline

from bench.linear_models import MODELS
from sentiment import paths
from sentiment.data.parquet import read_reviews
from sentiment.errors import UserError, exits_cleanly
from sentiment.evaluation.metrics import compute_classification_metrics
from sentiment.params import load_params


@exits_cleanly
def main() -> None:
    """Fit the linear models; print their AUC beside the AUC of the pipeline's models."""
    models = {**{name: _evaluate_linear(make()) for name, make in MODELS.items()}, **_metrics_of_pipeline()}
    print("| model | validation AUC | test AUC | confidence interval (DeLong) |\n| --- | --- | --- | --- |")
    for name, metrics in models.items():
        validation, test, interval = (
            metrics["validation"]["auc"],
            metrics["test"]["auc"],
            metrics["test"]["interval"]["auc"],
        )
        print(f"| {name} | {validation:.4f} | {test:.4f} | {interval['low']:.4f} to {interval['high']:.4f} |")


def _evaluate_linear(linear: Pipeline) -> dict[str, Any]:
    params = load_params().evaluate
    train = read_reviews(paths.reviews("train")).to_pandas()
    linear.fit(train["text"], train["label"])
    metrics = {}
    for split in ("validation", "test"):
        reviews = read_reviews(paths.reviews(split)).to_pandas()
        positive = linear.predict_proba(reviews["text"])[:, 1]
        metrics[split] = compute_classification_metrics(
            reviews["label"].to_numpy(), positive, threshold=0.5, confidence_level=params.confidence_level
        )
    return metrics


def _metrics_of_pipeline() -> dict[str, Any]:
    path = paths.metrics("evaluate")
    try:
        models = json.loads(path.read_text(encoding="utf-8"))["models"]
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `make repro` writes it") from None
    return {f"LSTM, {name}": metrics for name, metrics in models.items() if name != "reference"}


if __name__ == "__main__":
    main()

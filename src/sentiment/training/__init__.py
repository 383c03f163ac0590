"""How the weights are found. Knows neither MLflow nor Optuna: who wants to watch passes a callback."""

"""Training of the classifier; without MLflow and Optuna: callers observe a run through callbacks."""

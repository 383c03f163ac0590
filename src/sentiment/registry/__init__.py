"""Model registry: versions and stages of the selected model, as git tags that MLflow mirrors."""

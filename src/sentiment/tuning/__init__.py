"""Hyperparameter search around the configuration in params.yaml."""

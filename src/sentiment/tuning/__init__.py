"""The search around the configuration in params.yaml."""

"""Evaluation: metrics and plots of models, and the verdict on two of them."""

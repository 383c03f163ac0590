"""Simulations that hold the verdict on two models to account."""

"""Benchmarks of training: speed and its breakdown, time to a target AUC, memory."""

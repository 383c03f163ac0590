"""Scheduled retraining, held to account: its gates on simulated and real reviews."""

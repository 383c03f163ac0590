"""Scheduled retraining: data gate, `dvc repro`, model gate, and the ledger of their decisions."""

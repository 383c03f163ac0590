"""Parts of bench.tune."""

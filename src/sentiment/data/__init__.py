"""Reviews and their labels: sources, validation, deduplication, splits and storage."""

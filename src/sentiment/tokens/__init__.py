"""Reviews as numbers: the vocabulary, the arrays on disk, the batches."""

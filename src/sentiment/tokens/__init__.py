"""Tokenization: the vocabulary, token arrays on disk, n-gram features and batches."""

"""Bring a file to this machine: from a mirror, a store or a folder, checked before anybody reads it."""

from sentiment.reviews.fetching.addresses import local_path, shown
from sentiment.reviews.fetching.matching import matching
from sentiment.reviews.fetching.mirrors import fetch

__all__ = ["fetch", "local_path", "matching", "shown"]

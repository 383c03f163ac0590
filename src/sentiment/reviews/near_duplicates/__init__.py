"""Reviews outside the test split that are almost a test review."""

from sentiment.reviews.near_duplicates.search import (
    NearDuplicates,
    find_near_duplicates,
    list_nothing,
)

__all__ = ["NearDuplicates", "find_near_duplicates", "list_nothing"]

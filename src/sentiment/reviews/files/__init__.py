"""Reviews from files of one's own: CSV, TSV, JSON Lines or Parquet, plain or packed."""

from sentiment.reviews.files.locating import refuse_shared_files
from sentiment.reviews.files.reading import read_files

__all__ = ["read_files", "refuse_shared_files"]

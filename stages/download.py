"""Take the reviews from their source, drop repeats, split."""

from typing import Any

from sentiment import paths
from sentiment.errors import exits_cleanly
from sentiment.outputs import write_json
from sentiment.params import load_params
from sentiment.reviews.cleaning import deduplicated
from sentiment.reviews.package import read_package
from sentiment.reviews.splitting import limited, split_in_blocks
from sentiment.reviews.statistics import describe
from sentiment.reviews.storage import write_reviews


@exits_cleanly
def main() -> None:
    """Write one Parquet file per split, and what is in them."""
    params = load_params().download
    reviews, repeats = deduplicated(read_package())
    splits = split_in_blocks(limited(reviews, params.limit), params.split, params.seed)
    for split, part in splits.items():
        write_reviews(paths.reviews(split), part)
    figures: dict[str, Any] = {split: describe(part) for split, part in splits.items()}
    write_json(paths.metrics("download"), {"dropped_repeats": repeats, **figures})


if __name__ == "__main__":
    main()

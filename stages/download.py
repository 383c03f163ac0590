"""Take the reviews from their sources, check them, drop duplicates, split."""

from sentiment import paths
from sentiment.errors import exits_cleanly
from sentiment.outputs import write_json
from sentiment.params import load_params
from sentiment.reviews.gathering import gather


@exits_cleanly
def main() -> None:
    """Write one Parquet file per split, the reports on rows, and what is in all of them."""
    write_json(paths.metrics("download"), gather(load_params().download))


if __name__ == "__main__":
    main()

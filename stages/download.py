"""Download the reviews from their sources, validate, deduplicate and split them."""

import logging

from sentiment import paths
from sentiment.data.build import build_splits
from sentiment.data.download_cache import recording_files
from sentiment.data.recorded_files import warn_about_different_files
from sentiment.environment import require_locked_packages
from sentiment.errors import exits_cleanly
from sentiment.files import write_json
from sentiment.params import load_params
from sentiment.repository import list_incoming_files, require_incoming_in_copy

logger = logging.getLogger(__name__)


@exits_cleanly
def main() -> None:
    """Write one Parquet file per split, the row reports, and the metrics with the list of source files."""
    require_locked_packages("download")
    require_incoming_in_copy()
    with recording_files() as files:
        metrics = build_splits(load_params().download)
    warn_about_different_files(files)
    if unread := sorted(set(list_incoming_files()) - set(files)):
        logger.warning(f"no source reads {', '.join(unread)}, because no pattern in its paths matches")
    write_json(paths.metrics("download"), {**metrics, "files": files})


if __name__ == "__main__":
    main()

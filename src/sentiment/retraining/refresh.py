"""The two runs of `dvc repro` of a retraining: download before the data gate, the other stages after it."""

from sentiment import paths
from sentiment.data.locations import to_local_path
from sentiment.data.recorded_files import find_changed_files, require_tracked_files
from sentiment.errors import UserError
from sentiment.params.data import DownloadParams
from sentiment.retraining.pipeline import PipelineRun, run_pipeline


def refresh_data(params: DownloadParams) -> PipelineRun:
    """Run download if a source may have changed.

    Raises:
        UserError: a file that a `.dvc` file names is missing everywhere, or a source fails.
    """
    require_tracked_files(paths.INCOMING)
    # DVC detects changes of data/incoming only.
    force = _has_mutable_url(params) or find_changed_files(params)
    return run_pipeline(*(["--force"] if force else []), "--single-item", "download")


def run_other_stages() -> PipelineRun:
    """Run the stages after download whose inputs changed.

    Raises:
        UserError: download ran again: the data changed after the data gate, or a stage fails.
    """
    pipeline = run_pipeline()
    if "download" in pipeline.seconds or "download" in pipeline.restored:
        raise UserError(
            "the data changed while the retraining ran, and the data gate has not checked the change: run "
            "`sentiment retrain` again"
        )
    return pipeline


def _has_mutable_url(params: DownloadParams) -> bool:
    """Return whether a source is read from a URL whose content may change."""
    return any(
        source.kind in ("files", "imdb") and source.checksum is None and to_local_path(location) is None
        for source in params.sources
        for location in source.locations
    )

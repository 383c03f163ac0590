"""Data at which the stage download stops, before the data gate can compare them with the champion's."""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress

from sentiment.data.review_files import list_files
from sentiment.errors import UserError
from sentiment.params.data import DownloadParams
from sentiment.repository import list_incoming_files
from sentiment.retraining.data_checks import Violation
from sentiment.retraining.data_gate import DataGateResult

CHECK = "download"
"""Name of the check that these data exceed, in place of a limit of `retrain.data`."""

WHOLE_DATA = "reviews: "
"""Prefix of download's messages on all rows, such as more duplicates than `download.checks` allows."""

EXAMPLES_FOLLOW = "; for example:"
HAS_ADVICE = re.compile("correct them|increase|add reviews")
"""What messages on all rows contain if they also name a remedy."""


def check_stopped_download(message: Sequence[str], params: DownloadParams) -> DataGateResult | None:
    """Return the result of the data gate if download stopped because of the content of the data.

    Args:
        message: lines of download's message.
        params: section `download` of params.yaml.

    Returns:
        The result, with the message as its violation; None if something else is wrong, such as a source that
        does not exist or cannot be reached.
    """
    first, *examples = message
    if first.startswith(WHOLE_DATA):
        advice = (
            None if HAS_ADVICE.search(first) else "correct the rows, or change download.checks in params.yaml"
        )
    elif any(first.startswith((f"{file}:", f"{file},", f"{file} ")) for file in _list_files(params)):
        advice = "correct the file"
    else:
        return None
    cause = first.removesuffix(EXAMPLES_FOLLOW)
    violation = Violation(CHECK, f"{cause}; {advice}" if advice else cause, examples)
    return DataGateResult(None, {}, [violation], accepted=False, has_downloaded=False)


def _list_files(params: DownloadParams) -> Iterator[str]:
    """Yield the files of all sources that can be listed."""
    yield from list_incoming_files()
    for source in params.sources:
        if source.kind == "files":
            with suppress(UserError):
                yield from list_files(source)

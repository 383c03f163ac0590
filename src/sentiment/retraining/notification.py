"""Post the outcome of a retraining to an address of the team's choice, such as a chat's webhook."""

import json
import logging
import urllib.error
import urllib.request
from http.client import HTTPException

from sentiment.settings import load_settings

logger = logging.getLogger(__name__)

TIMEOUT_S = 10
MAX_LINES = 12
"""Number of the report's first lines that are posted."""


def notify(outcome: str, reason: str, report: str) -> None:
    """Post the outcome to RETRAIN_NOTIFY_URL as JSON; do nothing if it is not set.

    The fields are `outcome`, `reason`, `report`, which has the report's first lines, and `text`, which chats
    show. A failure is only a warning. The address may contain a secret, so no message has it.

    Args:
        outcome: outcome of the retraining, such as `promote`.
        reason: why, in one sentence.
        report: content of `reports/retrain.md`.
    """
    address = load_settings().retrain_notify_url
    if address is None:
        return
    content = {
        "text": f"Retraining: {outcome}: {reason}",
        "outcome": outcome,
        "reason": reason,
        "report": "\n".join(report.splitlines()[:MAX_LINES]),
    }
    url = address.get_secret_value()
    if not url.startswith(("http://", "https://")):
        logger.warning("RETRAIN_NOTIFY_URL is neither an http nor an https address: nothing was posted")
        return
    try:
        request = urllib.request.Request(  # noqa: S310, the scheme is checked
            url, json.dumps(content).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=TIMEOUT_S):  # noqa: S310
            pass
    except urllib.error.HTTPError as error:
        logger.warning("RETRAIN_NOTIFY_URL answered with status %s: the outcome was not posted", error.code)
    except urllib.error.URLError as error:
        cause = error.reason if isinstance(error.reason, OSError) else type(error).__name__
        logger.warning("RETRAIN_NOTIFY_URL cannot be reached (%s): the outcome was not posted", cause)
    except (OSError, HTTPException, ValueError) as error:  # some of their messages contain the address
        logger.warning("RETRAIN_NOTIFY_URL failed (%s): the outcome was not posted", type(error).__name__)

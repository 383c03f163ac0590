"""What may stand in a run: addresses without their passwords, no value of a secret variable."""

import os
import re
from collections.abc import Callable

from sentiment.reviews.fetching.addresses import without_secrets
from sentiment.settings import load_settings, repository_root, secrets_of

SECRET_NAME = re.compile(r"(PASSWORD|PASSWD|TOKEN|SECRET|_KEY|CREDENTIALS?)$", re.IGNORECASE)
ASSIGNED = re.compile(r"^\s*(?:export\s+)?(\w+)\s*=\s*['\"]?(.*?)['\"]?\s*$", re.MULTILINE)
SHORTEST = 6
"""Characters of a value that is looked for: a shorter one stands in any text by chance."""

HIDDEN = "<hidden>"


def redactor() -> Callable[[str], str]:
    """Return a function that shortens addresses in a text to what messages show, and hides known secrets.

    Known are those in the environment and `.env`: passwords of addresses, values of variables that are named
    as secrets are.
    """
    secrets = sorted(_known_secrets(), key=len, reverse=True)

    def redact(text: str) -> str:
        for secret in secrets:
            text = text.replace(secret, HIDDEN)
        return without_secrets(text, HIDDEN)

    return redact


def _known_secrets() -> set[str]:
    settings = load_settings()
    addresses = (settings.mlflow_tracking_uri, settings.tune_storage)
    found = {secret for address in addresses if address for secret in secrets_of(address.get_secret_value())}
    try:
        assigned = ASSIGNED.findall((repository_root() / ".env").read_text(encoding="utf-8"))
    except OSError:
        assigned = []
    variables = [*os.environ.items(), *assigned]
    found |= {value for name, value in variables if SECRET_NAME.search(name)}
    return {secret for secret in found if len(secret) >= SHORTEST}

"""Where pages are served on this machine."""

import socket

from sentiment.errors import UserError

HOST = "127.0.0.1"
"""The loopback: neither page asks who reads it."""


def require_free(port: int, target: str) -> None:
    """Raise UserError where a port is taken. target: of make, which then takes another one."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
        try:
            probe.bind((HOST, port))
        except OSError:
            suggestion = f"make {target} PORT={port + 1}"
            raise UserError(f"port {port} is taken; choose another: {suggestion}") from None

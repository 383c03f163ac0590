"""A server in a process of its own: announced once it answers, ended by this process's signals."""

import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from types import FrameType

from sentiment.errors import UserError

ANSWER_S = 300.0
"""MLflow's server answers after 8 to 40 s, on busy cores after more than a minute."""

POLL_S = 0.2


def serve_until_ended(
    arguments: Sequence[str], environment: Mapping[str, str], address: str, announce: Callable[[], None]
) -> None:
    """Start a server, announce it when it answers, and wait until it ends.

    Ctrl-C and the signals that end this process are forwarded to the server, from any sender.

    Args:
        arguments: of the server's command.
        environment: of its process.
        address: asked until it answers with anything but an error of the server.
        announce: called once when it does.

    Raises:
        UserError: the server ended before it answered, or did not answer within ANSWER_S.
    """
    received: list[int] = []
    with subprocess.Popen(arguments, env=environment) as server:

        def forward(number: int, _: FrameType | None) -> None:
            received.append(number)
            if server.poll() is None:
                server.send_signal(number)

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, forward)
        try:
            if _answers_in_time(server, address, received):
                announce()
            server.wait()
        finally:
            if server.poll() is None:
                server.terminate()
    if received:
        raise SystemExit(128 + received[0])
    if server.returncode:
        raise UserError(f"the server ended with status {server.returncode}; the lines above say why")


def _answers_in_time(server: subprocess.Popen[bytes], address: str, received: Sequence[int]) -> bool:
    """Wait for the first answer; False where the server ended or was asked to."""
    deadline = time.monotonic() + ANSWER_S
    while server.poll() is None and not received:
        if _answers(address):
            return True
        if time.monotonic() > deadline:
            raise UserError(f"the server did not answer at {address} within {ANSWER_S:.0f} s")
        time.sleep(POLL_S)
    return False


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(address, timeout=5).close()  # noqa: S310  # http on the loopback
    except (OSError, urllib.error.URLError):
        return False
    return True

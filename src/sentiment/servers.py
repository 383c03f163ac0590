"""The MLflow UI and optuna-dashboard: started as child processes, announced once they answer."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import FrameType
from wsgiref.simple_server import make_server

import optuna_dashboard

from sentiment import paths
from sentiment.errors import UserError
from sentiment.settings import load_settings, repository_root
from sentiment.tracking.mlflow_store import open_store, tracking_uri
from sentiment.tuning.storage import open_storage

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


def serve_mlflow_ui(port: int) -> None:
    """Serve the UI until Ctrl-C, and print its address once it answers; a tracking server has its own UI.

    Raises:
        UserError: the store cannot be opened, the port is taken, or the server fails.
    """
    uri = tracking_uri(load_settings())
    if uri.startswith(("http://", "https://")):
        print("The runs are on the tracking server that MLFLOW_TRACKING_URI names: open that address.")
        return
    require_free(port, "ui")
    # The plain address opens on a page about language models, which this experiment has nothing to show on.
    experiment = open_store().experiment_id
    address = f"http://{HOST}:{port}"
    runs = f"{address}/#/experiments/{experiment}/runs?workflowType=machine_learning"
    environment = {
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": uri,  # in the environment, not the arguments: it may hold a password
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # the pipeline has no jobs; saves 1.3 GB
    }
    arguments = [sys.executable, "-m", "mlflow", "ui", "--host", HOST, "--port", str(port)]
    serve_until_ended(
        arguments,
        environment,
        f"{address}/api/2.0/mlflow/experiments/get?experiment_id={experiment}",  # as the page of runs asks
        lambda: print(f"MLflow UI: {runs}  (Ctrl-C stops it)", flush=True),
    )


NO_SEARCH = "no search to look at yet; `dvc repro tune` starts one"


def serve_dashboard(port: int) -> None:
    """Serve the dashboard until Ctrl-C, printing its address once it listens; a running search is shown live.

    Raises UserError where there is no study yet, the storage does not answer, or the port is taken.
    """
    journal = repository_root() / paths.JOURNAL
    if load_settings().tune_storage is None and not journal.is_file():  # to open it would start it
        raise UserError(f"{journal}: {NO_SEARCH}")
    storage = open_storage()
    studies = storage.get_all_studies()
    if not studies:
        raise UserError(NO_SEARCH)
    require_free(port, "dashboard")
    with suppress(KeyboardInterrupt), make_server(HOST, port, optuna_dashboard.wsgi(storage)) as server:
        # The server listens already: who opens the address from here on gets an answer.
        print(f"Searches: {len(studies)}; http://{HOST}:{port}/dashboard  (Ctrl-C stops it)", flush=True)
        server.serve_forever()

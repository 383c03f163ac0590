"""Servers of web pages: the MLflow UI, which runs in a child process, and optuna-dashboard."""

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
from sentiment.tracking.ui import runs_page
from sentiment.tuning.storage import open_storage

HOST = "127.0.0.1"
"""Loopback address, because neither server authenticates its users."""

STARTUP_TIMEOUT_S = 300.0
"""MLflow's server takes 8 to 40 s to answer, on busy cores more than a minute."""

POLL_S = 0.2

NO_STUDY = "there is no study yet; `dvc repro tune` starts one"


def serve_mlflow_ui(port: int) -> None:
    """Serve the MLflow UI until Ctrl-C, and print the address of the table of runs once it answers.

    If MLFLOW_TRACKING_URI is a tracking server, nothing is started; the path of the table of runs in the
    server's own UI is printed.

    Args:
        port: port to listen on.

    Raises:
        UserError: the store cannot be opened, the port is in use, or the server fails.
    """
    uri = tracking_uri(load_settings())
    is_remote = uri.startswith(("http://", "https://"))
    if not is_remote:
        require_free_port(port, "ui")
    store = open_store()
    # The root address opens MLflow's home page, the experiment's address a dashboard of agents' traces.
    page = runs_page(store.client.get_experiment(store.experiment_id))
    if is_remote:
        print(f"The tracking server has its own UI; open the address in MLFLOW_TRACKING_URI, then /{page}")
        return
    address = f"http://{HOST}:{port}"
    environment = {
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": uri,  # not in the arguments, which are public: it may contain a password
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # the pipeline has no jobs; saves 1.3 GB of memory
    }
    serve_until_exit(
        [sys.executable, "-m", "mlflow", "ui", "--host", HOST, "--port", str(port)],
        environment,
        f"{address}/api/2.0/mlflow/experiments/get?experiment_id={store.experiment_id}",  # as the page
        lambda: print(f"MLflow UI: {address}/{page}  (press Ctrl-C to stop)", flush=True),
    )


def serve_dashboard(port: int) -> None:
    """Serve optuna-dashboard until Ctrl-C, and print its address; a running search is shown live.

    Args:
        port: port to listen on.

    Raises:
        UserError: there is no study yet, the storage cannot be reached, or the port is in use.
    """
    journal = repository_root() / paths.JOURNAL
    if load_settings().tune_storage is None and not journal.is_file():  # opening it would create it
        raise UserError(f"{journal}: {NO_STUDY}")
    storage = open_storage()
    studies = storage.get_all_studies()
    if not studies:
        raise UserError(NO_STUDY)
    require_free_port(port, "dashboard")
    with suppress(KeyboardInterrupt), make_server(HOST, port, optuna_dashboard.wsgi(storage)) as server:
        # The server is already listening, so the address works as soon as it is printed.
        print(f"Studies: {len(studies)}; http://{HOST}:{port}/dashboard  (press Ctrl-C to stop)", flush=True)
        server.serve_forever()


def require_free_port(port: int, target: str) -> None:
    """Raise UserError if a port is in use.

    Args:
        port: port on the loopback address.
        target: make target that the error message suggests to run with another port.

    Raises:
        UserError: the port is in use.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
        try:
            probe.bind((HOST, port))
        except OSError:
            suggestion = f"make {target} PORT={port + 1}"
            raise UserError(f"port {port} is in use; choose another: {suggestion}") from None


def serve_until_exit(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    health_address: str,
    on_ready: Callable[[], None],
) -> None:
    """Start a server, call `on_ready` once it answers, and wait until it exits.

    SIGINT, SIGTERM and SIGHUP are forwarded to the server, whatever process sent them.

    Args:
        arguments: command line of the server.
        environment: environment variables of the server's process.
        health_address: address that is requested until the response is not an error.
        on_ready: function that is called once.

    Raises:
        UserError: the server exited before it answered, did not answer in time, or exited with a
            status other than 0.
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
            if _wait_until_ready(server, health_address, received):
                on_ready()
            server.wait()
        finally:
            if server.poll() is None:
                server.terminate()
    if received:
        raise SystemExit(128 + received[0])
    if server.returncode:
        raise UserError(f"the server exited with status {server.returncode}; see its output above")


def _wait_until_ready(server: subprocess.Popen[bytes], address: str, received: Sequence[int]) -> bool:
    """Wait for the first answer; return False if the server exited or a signal arrived."""
    deadline = time.monotonic() + STARTUP_TIMEOUT_S
    while server.poll() is None and not received:
        if _is_answering(address):
            return True
        if time.monotonic() > deadline:
            raise UserError(f"the server did not answer at {address} within {STARTUP_TIMEOUT_S:.0f} s")
        time.sleep(POLL_S)
    return False


def _is_answering(address: str) -> bool:
    """Return whether a server answers a request without an error."""
    try:
        urllib.request.urlopen(address, timeout=5).close()  # noqa: S310  # http on the loopback
    except (OSError, urllib.error.URLError):
        return False
    return True

"""The MLflow UI on the right store."""

import os
import sys

from sentiment.ports import HOST, require_free
from sentiment.settings import load_settings
from sentiment.tracking.store import open_store, tracking_uri
from sentiment.waiting import serve_until_ended


def serve(port: int) -> None:
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

"""The MLflow UI on the right store."""

import os
import sys

from sentiment.ports import HOST, require_free
from sentiment.settings import load_settings
from sentiment.tracking.store import open_store, tracking_uri


def serve(port: int) -> None:
    """Print the address and become the UI's process; a tracking server has a UI of its own."""
    uri = tracking_uri(load_settings())
    if uri.startswith(("http://", "https://")):
        print("The runs are on the tracking server that MLFLOW_TRACKING_URI names: open that address.")
        return
    require_free(port, "ui")
    # The plain address opens on a page about language models, which this experiment has nothing to show on.
    runs = f"http://{HOST}:{port}/#/experiments/{open_store().experiment_id}/runs"
    print(f"MLflow UI: {runs}  (Ctrl-C stops it)", flush=True)
    environment = {
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": uri,  # in the environment, not the arguments: it may hold a password
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # the pipeline has no jobs; saves 1.3 GB
    }
    arguments = [sys.executable, "-m", "mlflow", "ui", "--host", HOST, "--port", str(port)]
    os.execve(sys.executable, arguments, environment)

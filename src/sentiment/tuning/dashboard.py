"""optuna-dashboard on the storage that searches are kept in."""

from contextlib import suppress
from wsgiref.simple_server import make_server

import optuna_dashboard

from sentiment import paths
from sentiment.errors import UserError
from sentiment.ports import HOST, require_free
from sentiment.settings import load_settings, repository_root
from sentiment.tuning.storage import open_storage, storage_errors

NO_SEARCH = "no search to look at yet; `dvc repro tune` starts one"


def serve(port: int) -> None:
    """Serve the dashboard until Ctrl-C, printing its address once it listens; a running search is shown live.

    Raises UserError where there is no study yet, the storage does not answer, or the port is taken.
    """
    journal = repository_root() / paths.JOURNAL
    if load_settings().tune_storage is None and not journal.is_file():  # to open it would start it
        raise UserError(f"{journal}: {NO_SEARCH}")
    storage = open_storage()
    with storage_errors():
        studies = storage.get_all_studies()
    if not studies:
        raise UserError(NO_SEARCH)
    require_free(port, "dashboard")
    with suppress(KeyboardInterrupt), make_server(HOST, port, optuna_dashboard.wsgi(storage)) as server:
        # The server listens already: who opens the address from here on gets an answer.
        print(f"Searches: {len(studies)}; http://{HOST}:{port}/dashboard  (Ctrl-C stops it)", flush=True)
        server.serve_forever()

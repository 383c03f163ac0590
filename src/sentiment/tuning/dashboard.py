"""optuna-dashboard on the storage that searches are kept in."""

import optuna_dashboard

from sentiment import paths
from sentiment.errors import UserError
from sentiment.ports import HOST, require_free
from sentiment.settings import load_settings, repository_root
from sentiment.tuning.storage import open_storage, storage_errors

NO_SEARCH = "no search to look at yet; `dvc repro tune` starts one"


def serve(port: int) -> None:
    """Print the address and serve the dashboard until Ctrl-C; a running search shows as it goes on.

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
    print(f"Searches: {len(studies)}; http://{HOST}:{port}/dashboard  (Ctrl-C stops it)", flush=True)
    optuna_dashboard.run_server(storage, host=HOST, port=port)

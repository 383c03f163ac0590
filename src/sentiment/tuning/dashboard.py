"""optuna-dashboard on the storage that searches are kept in."""

from pathlib import Path

import optuna_dashboard
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from sentiment.errors import UserError
from sentiment.ports import HOST, require_free
from sentiment.settings import load_settings, repository_root

JOURNAL = Path("mlruns") / "optuna.journal"

NO_SEARCH = "no search to look at yet; `dvc repro tune` starts one"


def serve(port: int) -> None:
    """Print the address and serve the dashboard until Ctrl-C; a running search shows as it goes on.

    Raises UserError where there is no study yet, the storage does not answer, or the port is taken.
    """
    storage, where = _open_storage()
    studies = storage.get_all_studies()
    if not studies:
        raise UserError(f"{where}: {NO_SEARCH}")
    require_free(port, "dashboard")
    print(f"Searches: {len(studies)}; http://{HOST}:{port}/dashboard  (Ctrl-C stops it)", flush=True)
    optuna_dashboard.run_server(storage, host=HOST, port=port)


def _open_storage() -> tuple[BaseStorage, str]:
    """Return the storage and its name for messages, never its address: that may hold a password."""
    address = load_settings().tune_storage
    if address is not None:
        name = "the storage that TUNE_STORAGE names"
        try:
            return RDBStorage(address.get_secret_value()), name
        except ImportError:
            raise UserError(f"{name}: the driver for its kind of database is not installed") from None
        except Exception as error:  # each database has errors of its own, which may quote the address
            raise UserError(f"{name}: does not work ({type(error).__name__})") from None
    journal = repository_root() / JOURNAL
    if not journal.is_file():  # Optuna would make an empty one
        raise UserError(f"{journal}: {NO_SEARCH}")
    try:
        return JournalStorage(JournalFileBackend(str(journal))), str(journal)
    except ValueError as error:
        raise UserError(f"{journal}: not a journal of Optuna, or torn ({error})") from None

"""Where the pipeline runs, from the environment or `.env`; nothing here changes a result."""

import os
from pathlib import Path

from pydantic import Field, PositiveFloat, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from sentiment.errors import UserError


class Settings(BaseSettings):
    """Addresses of this machine's or this team's services."""

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", use_attribute_docstrings=True)

    mlflow_tracking_uri: SecretStr | None = None
    """Tracking server or database; by default the sqlite store in `mlruns/`. It may hold a password."""
    mlflow_experiment_name: str = Field(default="sentiment", min_length=1)
    """Experiment that runs are logged to."""
    download_cache: Path | None = None
    """Folder for downloaded archives, relative to the root; by default `.cache/downloads`."""
    checkpoint_minutes: PositiveFloat = 2
    """Training keeps its state this often, and after every epoch: what a kill costs at most."""
    tune_storage: SecretStr | None = None
    """Database that keeps the studies; by default the journal in `mlruns/`. It may hold a password."""


def repository_root() -> Path:
    """Return the repository that the user works in.

    DVC runs temporary and queued experiments in a copy of the repository and names the real one in
    DVC_ROOT: what must outlive the copy belongs there.
    """
    return Path(os.environ.get("DVC_ROOT") or Path.cwd()).resolve()


def load_settings() -> Settings:
    """Read the environment, then `.env` at the repository's root for what the environment does not set.

    Raises UserError that lists every fault by the variable's name, never by its value.
    """
    file = repository_root() / ".env"
    try:
        return Settings(_env_file=file)
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    except ValidationError as error:
        faults = [f"  {fault['loc'][0]}".upper() + f": {fault['msg']}" for fault in error.errors()]
        raise UserError("\n".join(["environment: not usable", *faults])) from None

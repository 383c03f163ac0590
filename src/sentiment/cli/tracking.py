"""`sentiment ui`, `dashboard` and `store`: the MLflow store, and searches in a browser."""

from pathlib import Path
from typing import Annotated

import typer

from sentiment.errors import exits_cleanly
from sentiment.settings import enter_repository

app = typer.Typer()


@app.command()
@exits_cleanly
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 5000,
) -> None:
    """Serve the MLflow UI for the tracking store that the stages log to."""
    enter_repository()
    from sentiment.servers import serve_mlflow_ui

    serve_mlflow_ui(port)


@app.command()
@exits_cleanly
def dashboard(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 8080,
) -> None:
    """Serve optuna-dashboard for the studies of finished and running searches."""
    enter_repository()
    from sentiment.servers import serve_dashboard

    serve_dashboard(port)


store_app = typer.Typer(no_args_is_help=True, help="The MLflow database in mlruns.")
app.add_typer(store_app, name="store")


@store_app.command()
@exits_cleanly
def backup(file: Annotated[Path, typer.Argument(help="File to write.")]) -> None:
    """Copy the database, also while a stage writes to it. To restore it, copy it to mlruns/mlflow.db."""
    file = file.absolute()
    enter_repository()
    from sentiment.tracking.store_maintenance import back_up

    back_up(file)
    typer.echo(f"{file}: written")


@store_app.command()
@exits_cleanly
def upgrade() -> None:
    """Upgrade the database to the installed MLflow; the one from before stays beside it."""
    enter_repository()
    from sentiment.tracking.store_maintenance import upgrade as run

    former = run()
    typer.echo(f"upgraded; the database from before is {former}" if former else "nothing to upgrade")


@store_app.command()
@exits_cleanly
def move() -> None:
    """After the repository was moved or copied: let the artifacts' addresses point to its present folder."""
    enter_repository()
    from sentiment.tracking.store_maintenance import move as run

    typer.echo(f"{run()} addresses changed")

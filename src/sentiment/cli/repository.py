"""`sentiment check`, `repair` and `clean`: the state of the working tree, of caches and stores."""

from pathlib import Path
from typing import Annotated

import typer

from sentiment import paths
from sentiment.errors import UserError, exits_cleanly
from sentiment.settings import enter_repository

app = typer.Typer()


@app.command()
@exits_cleanly
def check() -> None:
    """Validate params.yaml, find corrupt files of DVC and warn about changed source files."""
    enter_repository()
    from sentiment.data.recorded_files import warn_about_changed_files
    from sentiment.params import load_params
    from sentiment.repair import REPAIR_HINT, find_corrupt_files

    params = load_params()
    if corrupt_files := find_corrupt_files(Path.cwd()):
        raise UserError(
            "\n".join([f"a process was killed, or the disk was full: {REPAIR_HINT}", *corrupt_files])
        )
    warn_about_changed_files(params.download)
    typer.echo(f"{paths.PARAMS}: valid")


@app.command()
@exits_cleanly
def repair() -> None:
    """Repair dvc.lock, DVC's locks and cache after a kill, a full disk or a power failure."""
    enter_repository()
    from sentiment.repair import repair as run

    count = 0
    for line in run(Path.cwd()):
        typer.echo(line)
        count += 1
    if not count:
        typer.echo("nothing to repair")


@app.command()
@exits_cleanly
def clean(
    commits: Annotated[
        int, typer.Option(min=1, help="Number of newest commits whose files are retained.")
    ] = 5,
    studies: Annotated[
        int, typer.Option(min=1, help="Number of newest studies whose models are retained.")
    ] = 3,
    days: Annotated[
        float,
        typer.Option(
            min=0, help="Age from which unused checkpoints, downloads and deleted runs are removed."
        ),
    ] = 14,
    yes: Annotated[bool, typer.Option("--yes", help="Remove the files; without it, only list them.")] = False,
) -> None:
    """Remove files from caches and stores that no recent commit, tag, experiment or study needs."""
    enter_repository()
    from sentiment.retention import RetentionPolicy
    from sentiment.retention import clean as run

    run(RetentionPolicy(commits, studies, days), remove=yes)

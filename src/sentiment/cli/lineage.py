"""`sentiment verify`, `reproduce` and `relock`: compare outputs with what they were made from."""

from json import dumps
from pathlib import Path
from typing import Annotated

import typer

from sentiment.cli.folders import locate_folder
from sentiment.errors import UserError, exits_cleanly
from sentiment.settings import enter_repository

app = typer.Typer()


@app.command()
@exits_cleanly
def verify(
    subject: Annotated[
        str | None,
        typer.Argument(
            help="A git revision, DVC experiment, model folder or id of an MLflow run.",
            show_default="the working tree",
        ),
    ] = None,
    lock: Annotated[
        bool,
        typer.Option(
            "--lock", help="Only compare dvc.lock with the code, parameters and packages of its commit."
        ),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare a model with the code, parameters, packages, data and run that it was made from.

    Exits with 0 only if all checks agree, with 1 if one differs or is not known.
    """
    if subject is not None and not subject.strip():
        raise UserError("the name is empty; without a name, the working tree is verified")
    if subject is not None and not lock:
        subject = locate_folder(subject)
    enter_repository()
    from sentiment.verification.verify import verify as run
    from sentiment.verification.verify import verify_lock

    result = verify_lock(subject or "HEAD") if lock else run(subject)
    typer.echo(dumps(result.to_dict()) if json else result)
    if not result.agrees:
        raise typer.Exit(1)


@app.command()
@exits_cleanly
def reproduce(
    revision: Annotated[str, typer.Argument(help="A git revision or DVC experiment.")] = "HEAD",
    keep: Annotated[
        Path | None,
        typer.Option(help="Folder to which the new outputs are copied; by default they are removed."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make a commit's outputs again in a clean worktree, and compare them with its dvc.lock.

    Exits with 0 if they are equal or other hardware explains the differences, with 1 if they differ.
    """
    keep = keep.absolute() if keep else None
    enter_repository()
    from sentiment.reproduction.reproduce import reproduce as run

    result = run(revision, keep)
    typer.echo(dumps(result.to_dict()) if json else result)
    if not result.is_reproduced:
        raise typer.Exit(1)


@app.command()
@exits_cleanly
def relock() -> None:
    """Record a refactoring in dvc.lock without a retraining, if results on a small cut are equal.

    Exits with 1 and leaves dvc.lock as it is if they differ.
    """
    enter_repository()
    from sentiment.reproduction.relock import relock as run

    result = run()
    typer.echo(result)
    if result.difference:
        raise typer.Exit(1)

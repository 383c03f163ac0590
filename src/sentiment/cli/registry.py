"""`sentiment promote`, `rollback`, `champion`, `history` and `registry`: which model is in use, and why."""

from json import dumps
from pathlib import Path
from typing import Annotated

import typer

from sentiment.errors import exits_cleanly
from sentiment.settings import enter_repository

app = typer.Typer()


@app.command()
@exits_cleanly
def promote(
    revision: Annotated[str, typer.Argument(help="Commit whose selected model is promoted.")] = "HEAD",
    reason: Annotated[
        str | None, typer.Option(help="Why; by default, the verdict.", show_default=False)
    ] = None,
    first: Annotated[
        bool, typer.Option("--first", help="Promote without comparison: no champion yet.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Promote whatever the verdict; needs --reason.")
    ] = False,
    push: Annotated[bool, typer.Option("--push", help="Push the tags to origin.")] = False,
) -> None:
    """Make a commit's model the champion, if it is better than the present one on the holdout split."""
    enter_repository()
    from sentiment.registry.promotion import promote as run

    change = run(revision, reason=reason, first=first, force=force, push=push)
    typer.echo(change.describe())


@app.command()
@exits_cleanly
def rollback(
    reason: Annotated[str, typer.Option(help="Why.")],
    push: Annotated[bool, typer.Option("--push", help="Push the tag to origin.")] = False,
) -> None:
    """Make the previous champion the champion again; a second rollback goes back one more."""
    enter_repository()
    from sentiment.registry.promotion import rollback as run

    typer.echo(run(reason, push=push).describe())


@app.command()
@exits_cleanly
def champion(
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print which model is in use, since when, by whom and why."""
    enter_repository()
    from sentiment.registry.revision import read_registered_model
    from sentiment.registry.state import open_registry, require_champion

    assignment = require_champion(open_registry())
    read_registered_model(assignment.tag)  # raises if the tag was moved to a commit with another model
    typer.echo(dumps(assignment.to_dict()) if json else assignment.describe())


@app.command()
@exits_cleanly
def history(
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    plot: Annotated[
        Path | None,
        typer.Option(help="Also plot the differences over time to this .png, .svg or .pdf file."),
    ] = None,
) -> None:
    """Print every decision on a model: of retrainings, promotions and rollbacks."""
    target = plot.absolute() if plot else None  # before enter_repository changes the working directory
    enter_repository()
    from sentiment.retraining.history import format_history, plot_history, read_history

    rows = read_history()
    typer.echo(dumps([row.to_dict() for row in rows]) if json else format_history(rows))
    if target:
        plot_history(rows, target)


registry_app = typer.Typer(no_args_is_help=True, help="The registry: git tags, which MLflow mirrors.")
app.add_typer(registry_app, name="registry")


@registry_app.command()
@exits_cleanly
def sync() -> None:
    """Make the registered model in MLflow agree with the git tags, and print what changed."""
    enter_repository()
    from sentiment.registry.mirror import synchronize
    from sentiment.registry.state import open_registry

    count = 0
    for line in synchronize(open_registry()):
        typer.echo(line)
        count += 1
    if not count:
        typer.echo("nothing to change")

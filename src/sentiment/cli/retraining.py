"""`sentiment retrain`."""

from typing import Annotated

import typer

from sentiment.errors import exits_cleanly
from sentiment.settings import enter_repository

app = typer.Typer()


@app.command()
@exits_cleanly
def retrain(
    exit_code: Annotated[
        bool,
        typer.Option(
            "--exit-code",
            help="Exit with 0 to promote, 10 nothing new, 11 not better, 12 cannot tell, 13 data stopped.",
        ),
    ] = False,
    push: Annotated[bool, typer.Option("--push", help="Push the decision to origin.")] = False,
) -> None:
    """Refresh the data, train what changed, and decide whether the new model should be promoted.

    The outcome is in reports/retrain.md and reports/retrain.json.
    """
    enter_repository()
    from sentiment.ledger import EXIT_STATUSES, push_ledger
    from sentiment.retraining.cycle import REPORT
    from sentiment.retraining.cycle import retrain as run

    result = run(will_push=push)
    typer.echo(f"{result.outcome}: {result.reason} ({REPORT})")
    if push:
        push_ledger()
    if exit_code:
        raise typer.Exit(EXIT_STATUSES[result.outcome])

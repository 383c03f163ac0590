"""The command line: check, predict, ui, dashboard, retrain. Heavy imports wait until a command needs them."""

from pathlib import Path
from typing import Annotated

import typer

from sentiment import paths
from sentiment.errors import exits_cleanly
from sentiment.settings import enter_repository

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Film reviews in, sentiment out.")


@app.command()
@exits_cleanly
def check() -> None:
    """Check params.yaml: every fault at once, before a stage touches a file."""
    enter_repository()
    from sentiment.params import load_params

    load_params()
    typer.echo(f"{paths.PARAMS}: no faults")


@app.command()
@exits_cleanly
def predict(
    texts: Annotated[
        list[str] | None, typer.Argument(help="Reviews; without any, one per line of standard input.")
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            help="Folder with weights, configuration and tokenizer.",
            show_default=f"{paths.SELECTED} of the repository",
        ),
    ] = None,
) -> None:
    """Print the probability that each review is positive, a line per review. `--` goes before a dash."""
    from sentiment.predicting import predict as run

    if model is None:  # else the path is relative to where the user stands, inside a repository or not
        enter_repository()
    run(texts, model or paths.SELECTED)


@app.command()
@exits_cleanly
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 5000,
) -> None:
    """Serve the MLflow UI on the store that the stages log to."""
    enter_repository()
    from sentiment.tracking.ui import serve

    serve(port)


@app.command()
@exits_cleanly
def dashboard(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 8080,
) -> None:
    """Serve optuna-dashboard on the searches that tune made or is making."""
    enter_repository()
    from sentiment.tuning.dashboard import serve

    serve(port)


@app.command()
@exits_cleanly
def retrain() -> None:
    """Refresh the data, run what changed, report against the committed state in reports/retrain.md."""
    enter_repository()
    from sentiment.retraining import retrain as run

    run()

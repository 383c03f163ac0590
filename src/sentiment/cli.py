"""The command line, a function per command. Heavy imports wait until a command needs them."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from sentiment import paths
from sentiment.errors import UserError, exits_cleanly

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Film reviews in, sentiment out.")


@app.command()
@exits_cleanly
def check() -> None:
    """Check params.yaml, all faults at once, and what a kill may have left, before a stage touches a file."""
    from sentiment.params import load_params
    from sentiment.repair import REPAIR_HINT, suspects

    load_params()
    if found := suspects(Path.cwd()):
        raise UserError("\n".join([f"a process was killed or found the disk full; {REPAIR_HINT}", *found]))
    typer.echo(f"{paths.PARAMS}: no faults")


@app.command()
@exits_cleanly
def repair() -> None:
    """Repair what a kill, a full disk or a power cut left half written: dvc.lock, DVC's locks and cache."""
    from sentiment.repair import repair as run

    done = 0
    for line in run(Path.cwd()):
        typer.echo(line)
        done += 1
    if not done:
        typer.echo("nothing to repair")


@app.command()
@exits_cleanly
def predict(
    texts: Annotated[
        list[str] | None, typer.Argument(help="Reviews; without any, one per line of standard input.")
    ] = None,
    model: Annotated[
        Path, typer.Option(help="Folder with weights, configuration and tokenizer.")
    ] = paths.SELECTED,
) -> None:
    """Print the probability that each review is positive, a line per review. `--` goes before a dash."""
    from sentiment.model.files import TOKENIZER
    from sentiment.model.predictor import Predictor

    if not (model / TOKENIZER).is_file():
        raise UserError(f"{model}: no model with its tokenizer there; `dvc repro` makes {paths.SELECTED}")
    reviews = texts or _lines_of_standard_input()
    for probability, review in zip(Predictor.load(model).predict(reviews), reviews, strict=True):
        typer.echo(f"{probability:.4f}\t{review}")


def _lines_of_standard_input() -> list[str]:
    try:
        lines = sys.stdin.buffer.read().decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"standard input: not UTF-8 text ({error.reason} at byte {error.start})") from None
    return [line for line in lines if line.strip()]


@app.command()
@exits_cleanly
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 5000,
) -> None:
    """Serve the MLflow UI on the store that the stages log to."""
    from sentiment.tracking.ui import serve

    serve(port)


@app.command()
@exits_cleanly
def dashboard(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 8080,
) -> None:
    """Serve optuna-dashboard on the searches that tune made or is making."""
    from sentiment.tuning.dashboard import serve

    serve(port)


@app.command()
@exits_cleanly
def retrain() -> None:
    """Refresh the data, run what changed, report against the committed state in reports/retrain.md."""
    from sentiment.retraining import retrain as run

    run()

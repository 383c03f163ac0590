"""The command line, a function per command. Heavy imports wait until a command needs them."""

from pathlib import Path
from typing import Annotated

import typer

from sentiment import paths
from sentiment.errors import UserError, exits_cleanly
from sentiment.settings import enter_repository

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Film reviews in, sentiment out.")


@app.command()
@exits_cleanly
def check() -> None:
    """Check params.yaml, all faults at once, and what a kill may have left; warn of changed source files."""
    enter_repository()
    from sentiment.data.recorded_files import warn_about_changed_files
    from sentiment.params import load_params
    from sentiment.repair import REPAIR_HINT, find_damaged_files

    params = load_params()
    if found := find_damaged_files(Path.cwd()):
        raise UserError("\n".join([f"a process was killed or found the disk full; {REPAIR_HINT}", *found]))
    warn_about_changed_files(params.download)
    typer.echo(f"{paths.PARAMS}: no faults")


@app.command()
@exits_cleanly
def repair() -> None:
    """Repair what a kill, a full disk or a power cut left half written: dvc.lock, DVC's locks and cache."""
    enter_repository()
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
        Path | None,
        typer.Option(
            help="Folder with weights, configuration and tokenizer.",
            show_default=f"{paths.SELECTED} of the repository",
        ),
    ] = None,
) -> None:
    """Print the probability that each review is positive, a line per review. `--` goes before a dash."""
    from sentiment.predict import predict as run

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
    from sentiment.servers import serve_mlflow_ui

    serve_mlflow_ui(port)


@app.command()
@exits_cleanly
def dashboard(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 8080,
) -> None:
    """Serve optuna-dashboard on the searches that tune made or is making."""
    enter_repository()
    from sentiment.servers import serve_dashboard

    serve_dashboard(port)


@app.command()
@exits_cleanly
def retrain() -> None:
    """Refresh the data, run what changed, report against the committed state in reports/retrain.md."""
    enter_repository()
    from sentiment.retraining import retrain as run

    run()


@app.command()
@exits_cleanly
def clean(
    commits: Annotated[int, typer.Option(min=1, help="Newest commits whose files stay.")] = 5,
    studies: Annotated[int, typer.Option(min=1, help="Newest searches whose models stay.")] = 3,
    days: Annotated[float, typer.Option(min=0, help="Age of checkpoints, downloads, deleted runs.")] = 14,
    yes: Annotated[bool, typer.Option("--yes", help="Remove; without it, only print.")] = False,
) -> None:
    """Remove from caches and stores what recent commits, tags, experiments and searches do not need."""
    enter_repository()
    from sentiment.retention import RetentionPolicy
    from sentiment.retention import clean as run

    run(RetentionPolicy(commits, studies, days), remove=yes)

"""The command line: one function per command, each of which imports what it needs when it runs."""

from enum import StrEnum
from json import dumps
from pathlib import Path
from typing import Annotated

import typer

from sentiment import paths
from sentiment.errors import UserError, exits_cleanly
from sentiment.settings import enter_repository


class ComparedSplit(StrEnum):
    """Splits that `sentiment compare` accepts."""

    validation = "validation"
    holdout = "holdout"
    test = "test"
    recent = "recent"


app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Train and use a sentiment classifier for film reviews."
)


def _locate_folder(name: str) -> str:
    """Return the absolute path of a folder, which would change with the working directory; else the name.

    A name that is also a git revision is that of the folder only if a model is in it.
    """
    folder = Path(name)
    if not folder.is_dir():
        return name
    from sentiment.repository import is_revision, warn_about_revision

    if not (folder / "config.json").is_file() and is_revision(name):
        return name
    warn_about_revision(name, "folder")
    return str(folder.absolute())


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
def predict(
    texts: Annotated[
        list[str] | None,
        typer.Argument(help="Reviews; without any, they are read from standard input, one per line."),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            help="Folder with the weights, the configuration and the tokenizer.",
            show_default=f"{paths.SELECTED} of the repository",
        ),
    ] = None,
) -> None:
    """Print the probability that each review is positive, one line per review.

    Put `--` before a review that starts with a dash.
    """
    from sentiment.predict import predict as run

    if model is None:  # otherwise the path is relative to the working directory, which may be anywhere
        enter_repository()
    run(texts, model or paths.SELECTED)


@app.command()
@exits_cleanly
def key(
    texts: Annotated[
        list[str] | None,
        typer.Argument(help="Reviews; without any, they are read from standard input, one per line."),
    ] = None,
) -> None:
    """Print the key of each review, one line per review, as data/removed.txt lists it.

    Put `--` before a review that starts with a dash.
    """
    from sentiment.data.removal import compute_keys

    for line in compute_keys(texts or [line.rstrip("\n") for line in typer.get_text_stream("stdin")]):
        typer.echo(line)


@app.command()
@exits_cleanly
def compare(
    model: Annotated[
        str,
        typer.Argument(
            help="A model folder, baseline, tuned, selected, or a git revision (its selected model)."
        ),
    ],
    reference: Annotated[str, typer.Argument(help="The model to compare with, named in the same ways.")],
    split: Annotated[
        ComparedSplit, typer.Option(help="Split of the working tree whose reviews are compared on.")
    ] = ComparedSplit.holdout,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare two models by AUC: better, no worse, worse, or cannot tell.

    Reviews that one of them was trained or validated on are left out.
    """
    model, reference = (
        name if name in paths.PIPELINE_MODELS else _locate_folder(name) for name in (model, reference)
    )
    enter_repository()
    from sentiment.comparison import compare as run

    result = run(model, reference, split.value)
    typer.echo(dumps(result.to_dict()) if json else result)


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
        subject = _locate_folder(subject)
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
    from sentiment.ledger import EXIT_STATUSES
    from sentiment.retraining.cycle import REPORT
    from sentiment.retraining.cycle import retrain as run

    result = run(push=push)
    typer.echo(f"{result.outcome}: {result.reason} ({REPORT})")
    if exit_code:
        raise typer.Exit(EXIT_STATUSES[result.outcome])


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


models_app = typer.Typer(no_args_is_help=True, help="Models that a fresh clone can fetch.")
app.add_typer(models_app, name="models")


@models_app.callback()
def models() -> None:
    """Keep `pack` a subcommand although it is the only one."""


@models_app.command()
@exits_cleanly
def pack(
    folder: Annotated[Path, typer.Argument(help="Folder to write, which must not have files.")],
) -> None:
    """Write this model, the last champions and open proposals to a folder, for the git branch `models`."""
    folder = folder.absolute()
    enter_repository()
    from sentiment.retraining.model_branch import pack_models

    for name, artifact in pack_models(folder).items():
        typer.echo(f"{name}: {artifact}")


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

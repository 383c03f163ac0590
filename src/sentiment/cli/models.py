"""`sentiment predict`, `key`, `compare` and `models`: use models, and give them to others."""

from enum import StrEnum
from json import dumps
from pathlib import Path
from typing import Annotated

import typer

from sentiment import paths
from sentiment.cli.folders import locate_folder
from sentiment.errors import exits_cleanly
from sentiment.settings import enter_repository

app = typer.Typer()


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


class ComparedSplit(StrEnum):
    """Splits that `sentiment compare` accepts."""

    validation = "validation"
    holdout = "holdout"
    test = "test"
    recent = "recent"


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
        name if name in paths.PIPELINE_MODELS else locate_folder(name) for name in (model, reference)
    )
    enter_repository()
    from sentiment.comparison import compare as run

    result = run(model, reference, split.value)
    typer.echo(dumps(result.to_dict()) if json else result)


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

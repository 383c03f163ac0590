"""The command line: one function per command, each of which imports what it needs when it runs."""

import typer

from sentiment.cli import lineage, models, registry, repository, retraining, tracking

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Train and use a sentiment classifier for film reviews."
)
for module in (repository, models, registry, retraining, lineage, tracking):
    app.add_typer(module.app)  # without a name: its commands are commands of `sentiment`

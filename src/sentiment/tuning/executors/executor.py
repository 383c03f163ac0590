"""The interface of the ways to run a search."""

from typing import Protocol

from sentiment.tracking import Run
from sentiment.tuning.study import Search


class Executor(Protocol):
    """Runs the trials of a search. The results do not depend on the executor."""

    @property
    def description(self) -> str:
        """What runs the trials: the number of processes, or `ray`."""

    def run(self, search: Search, run: Run) -> None:
        """Run the remaining trials of a search; return when the search is finished.

        Args:
            search: search whose trials to run.
            run: MLflow run of the search.

        Raises:
            UserError: a trial could not be completed, or a worker met an error that the user can fix.
        """

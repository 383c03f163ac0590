"""`sentiment retrain`: one retraining at a time, whose outcome is reported and recorded."""

import configparser
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from sentiment import paths
from sentiment.child_processes import interrupted_by_sigterm
from sentiment.errors import UserError, translated_errors
from sentiment.files import write_json, write_text
from sentiment.params import load_params
from sentiment.registry.origin import require_origin
from sentiment.repository import run_git
from sentiment.repository_locks import RETRAIN_LOCK
from sentiment.retraining.notification import notify
from sentiment.retraining.report import explain_failure, render_failure, render_report
from sentiment.retraining.result import RetrainingResult
from sentiment.retraining.steps import Cycle

logger = logging.getLogger(__name__)

REPORT = paths.REPORTS / "retrain.md"
RESULT = paths.REPORTS / "retrain.json"
DECISION = paths.REPORTS / "decision.jsonl"
"""The line of the ledger, for a job that adds it to the branch of the repository that others read."""

DVC_CONFIGS = (".dvc/config", ".dvc/config.local")


def retrain(*, will_push: bool = False) -> RetrainingResult:
    """Run one retraining, write its outcome to `reports`, and post it.

    Refreshes the sources, checks new rows against the champion, runs the stages that changed, and compares
    the selected model with the champion on the test split. A second call with the same inputs, or one after
    a kill, ends with the same outcome and the same line of the ledger; two calls at once run one after the
    other. If it fails, the report has the cause. SIGTERM ends it and its stages as Ctrl-C does.

    Args:
        will_push: the caller pushes the decision to origin afterwards: without a remote, nothing is trained.

    Raises:
        UserError: a source, a parameter or a stage fails, git cannot read a commit, or there is no remote.
        TrainingDivergedError: a training diverged.
    """
    with interrupted_by_sigterm(), _one_at_a_time():
        for path in (REPORT, RESULT, DECISION):
            path.unlink(missing_ok=True)  # so that a failed retraining leaves no report of an earlier one
        try:
            with translated_errors():
                if will_push:
                    require_origin("the decision is in the local branch ledger only")
                result = Cycle(load_params(), _resolve_head()).run()
                report = render_report(result)
        except BaseException as error:
            write_text(REPORT, report := render_failure(error))
            notify("failed", explain_failure(error).partition("\n")[0], report)
            raise
        write_json(RESULT, result.to_dict())
        write_text(REPORT, report)
        if result.entry is not None:
            write_text(DECISION, f"{result.entry.to_json()}\n")
    notify(result.outcome, result.reason, report)
    return result


def _resolve_head() -> str:
    """Return the commit that is checked out.

    Raises:
        UserError: there is none.
    """
    commit = run_git("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    config = configparser.ConfigParser(interpolation=None, strict=False)
    config.read(DVC_CONFIGS)
    if commit is None or config.getboolean("core", "no_scm", fallback=False):
        raise UserError(
            "retrain needs a commit, but git and DVC cannot read any: this is an exported archive, "
            "core.no_scm is set, or the repository has no commit. To train without a decision, run "
            "`dvc repro`; to create a commit, run `dvc config core.no_scm false`, `git init`, "
            "`git add --all` and `git commit`"
        )
    return commit.decode().strip()


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Wait until no other retraining runs in this repository."""
    RETRAIN_LOCK.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(RETRAIN_LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.warning("another retraining runs in this repository; waiting until it ends")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()

"""The lines of the report that do not depend on what was trained."""

import pytest

from sentiment.errors import TrainingDivergedError, UserError
from sentiment.ledger import LedgerEntry
from sentiment.retraining.pipeline import NOTHING_RAN
from sentiment.retraining.report import render_failure, render_report
from sentiment.retraining.result import RetrainingResult


@pytest.mark.slow
def test_report_names_the_split_that_is_too_small_and_the_last_decision() -> None:
    gate = {"is_look": False, "rows_missing": 1200, "undecided_split": "holdout"}
    entry = LedgerEntry(
        outcome="cannot_tell",
        reason="not better than the linear reference",
        test="t",
        champion=None,
        challenger=None,
        batch=None,
        commit="c",
        created="2026-11-08T00:00:00+00:00",
        is_look=False,
        details={"model_gate": gate},
    )
    result = RetrainingResult(
        outcome="cannot_tell",
        reason=entry.reason,
        commit="c" * 40,
        champions=(),
        entry=entry,
        is_repeated=False,
        changes=None,
        pipeline=NOTHING_RAN,
        data_gate=None,
        last_decision="2026-11-01T00:00:00+00:00",
    )
    report = render_report(result)
    assert "- about 1,200 more holdout reviews would decide" in report
    assert "Last decision before this retraining: 2026-11-01T00:00:00+00:00." in report


@pytest.mark.parametrize(
    ("error", "report"),
    [
        (UserError("no file"), "# Retraining: failed\n\nNo file.\n"),
        (TrainingDivergedError("inf"), "# Retraining: training diverged\n\nInf.\n"),
        (KeyboardInterrupt(), "# Retraining: failed\n\nInterrupted by Ctrl-C or SIGTERM; the next "),
        (KeyError("a"), "# Retraining: failed\n\nKeyError: 'a'.\n"),
        (MemoryError(), "# Retraining: failed\n\nMemoryError.\n"),
        (UserError(), "# Retraining: failed\n\nUserError.\n"),
    ],
)
def test_report_of_a_failure_has_its_cause(error: BaseException, report: str) -> None:
    assert render_failure(error).startswith(report)

from typing import Any

from sentiment.ledger import LedgerEntry, Outcome
from sentiment.retraining.steps import find_previous_rows


def _entry(rows: int | None, outcome: Outcome = "promote") -> LedgerEntry:
    batch: dict[str, Any] | None = None if rows is None else {"digest": "b" * 32, "rows": rows}
    return LedgerEntry(
        outcome=outcome,
        reason="",
        test="t",
        champion="m",
        challenger="n",
        batch=None,
        commit="c",
        created="2026-11-01T00:00:00+00:00",
        is_look=False,
        details={"data_gate": {"batch": batch}},
    )


def test_previous_rows_are_those_of_the_last_batch_that_had_some() -> None:
    assert find_previous_rows([]) is None
    entries = [_entry(200), _entry(300), _entry(9000, "data_stopped"), _entry(0), _entry(None)]
    assert find_previous_rows(entries) == 300
    assert find_previous_rows([_entry(0)]) is None

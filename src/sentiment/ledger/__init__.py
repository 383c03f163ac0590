"""The ledger: one line per decision on a model or a batch of rows, in a git branch of its own."""

from sentiment.ledger.branch import (
    append,
    count_looks,
    find_promotion,
    push_ledger,
    read_ledger,
    unite,
)
from sentiment.ledger.entry import EXIT_STATUSES, LedgerEntry, Outcome

__all__ = [
    "EXIT_STATUSES",
    "LedgerEntry",
    "Outcome",
    "append",
    "count_looks",
    "find_promotion",
    "push_ledger",
    "read_ledger",
    "unite",
]

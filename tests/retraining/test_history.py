"""The history of decisions, from a ledger and a registry."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from sentiment.errors import UserError
from sentiment.ledger import LedgerEntry
from sentiment.registry.git_tags import RegistryTag
from sentiment.registry.state import Registry
from sentiment.retraining.history import collect_history, format_history, plot_history

COMPARISON = {"difference": 0.0012, "interval": {"low": -0.0011, "high": 0.0035}}


def _tag(name: str, day: int, **details: str) -> RegistryTag:
    return RegistryTag(name, "c1", "Ada <ada@localhost>", datetime(2026, 11, day, tzinfo=UTC), "s", details)


ENTRIES = [
    LedgerEntry(
        outcome="promote",
        reason="no worse than before",
        test="7" * 32,
        champion="0" * 32,
        challenger="a1",
        batch=None,
        commit="c0",
        created="2026-11-02T10:00:00+00:00",
        is_look=True,
        verdict="no worse",
        details={"model_gate": {"comparisons": {"champion": COMPARISON}}},
    ),
    LedgerEntry(
        outcome="data_stopped",
        reason="labels look flipped",
        test="7" * 32,
        champion="a1",
        challenger=None,
        batch="b" * 32,
        commit="c1",
        created="2026-11-09T10:00:00+00:00",
        is_look=False,
    ),
]
REGISTRY = Registry(
    [
        _tag("sentiment@v2.0.0", 3, **{"Artifact-MD5": "a1"}),
        _tag("sentiment#champion#2", 3, Reason="merged", Verdict="no worse"),
        _tag("sentiment#champion#3", 10, Reason="slow", Action="rollback"),
    ]
)


def test_history_has_retrainings_promotions_and_rollbacks_by_date() -> None:
    rows = collect_history(ENTRIES, REGISTRY)
    assert [(row.decision, row.model) for row in rows] == [
        ("promote", "sentiment@v2.0.0"),
        ("champion", "sentiment@v2.0.0"),
        ("data_stopped", "batch bbbbbbb"),
        ("rollback", "sentiment@v2.0.0"),
    ]
    lines = format_history(rows).splitlines()
    assert lines[1].split("  ")[0] == "2026-11-02 10:00"
    assert "+0.0012 (-0.0011 to +0.0035)  no worse than before" in lines[1]
    assert lines[4].endswith("slow")
    assert rows[0].to_dict()["low"] == -0.0011


def test_history_is_plotted_in_the_format_of_the_suffix(tmp_path: Path) -> None:
    rows = collect_history(ENTRIES, REGISTRY)
    plot_history(rows, tmp_path / "history.png")
    assert (tmp_path / "history.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UserError, match=r"must end with one of \.png, \.svg, \.pdf"):
        plot_history(rows, tmp_path / "history.html")


def test_empty_history_is_a_table_head() -> None:
    assert format_history(collect_history([], Registry([]))).startswith("date (UTC)")

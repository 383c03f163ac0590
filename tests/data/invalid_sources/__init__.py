"""Inputs of the download stage, each spoiled in one way, and what the stage must say of it."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pytest

from tests.data.server import Served, serving


@dataclass
class Place:
    """The folder that the stage runs in, which is the current one, and what a case may need in it."""

    reviews: pa.Table
    """Real ones, 100 of each label, without a fault."""
    monkeypatch: pytest.MonkeyPatch
    stack: ExitStack = field(default_factory=ExitStack)

    @property
    def rows(self) -> list[dict[str, Any]]:
        return list(self.reviews.to_pylist())

    def serve(self, content: bytes, **options: Any) -> Served:
        """Serve content at a port of its own until the case is over."""
        return self.stack.enter_context(serving(content, **options))


@dataclass(frozen=True)
class Case:
    """One fault."""

    name: str
    spoil: Callable[[Place], dict[str, Any]]
    """Makes the files; returns what `download` in params.yaml has instead of the project's own."""
    says: tuple[str, ...]
    """Parts of the message: the file or source, and what is wrong with it."""
    rows_named: int | None = None
    """How many rows the message lists."""
    keeps_download: bool = False
    """What was fetched is what the server has, and has no checksum that it could miss: the cache keeps it."""


def case(name: str, spoil: Callable[[Place], dict[str, Any]], *says: str, **expected: Any) -> Case:
    """Shorthand for the lists of cases."""
    return Case(name, spoil, says, **expected)

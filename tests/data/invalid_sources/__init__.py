"""Invalid inputs of the download stage and the expected error messages."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pytest

from tests.data.server import Served, serving


@dataclass
class Place:
    """Working directory of the stage, and resources for the cases."""

    reviews: pa.Table
    """Valid reviews, 100 of each label."""
    monkeypatch: pytest.MonkeyPatch
    stack: ExitStack = field(default_factory=ExitStack)

    @property
    def rows(self) -> list[dict[str, Any]]:
        return list(self.reviews.to_pylist())

    def serve(self, content: bytes, **options: Any) -> Served:
        """Serve content on a new port until the end of the case."""
        return self.stack.enter_context(serving(content, **options))


@dataclass(frozen=True)
class Case:
    """An invalid input."""

    name: str
    prepare: Callable[[Place], dict[str, Any]]
    """Writes the files and returns changes of the section `download` of params.yaml."""
    messages: tuple[str, ...]
    """Expected parts of the error message: the file or source, and the problem."""
    rows_named: int | None = None
    """Number of rows that the message lists."""
    keeps_download: bool = False
    """Whether the download stays in the cache, because it has no checksum to violate."""


def case(name: str, prepare: Callable[[Place], dict[str, Any]], *messages: str, **expected: Any) -> Case:
    """Build a case."""
    return Case(name, prepare, messages, **expected)

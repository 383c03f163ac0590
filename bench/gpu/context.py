"""The context of a part: its inputs, and the file for its rows."""

import json
import logging
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.bars import Bar
from bench.gpu.packed import Pack

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bench:
    """One part's run in its own process.

    device: cuda, or cpu in a smoke run. folder: scratch that all parts share. rows: file that gets a line of
    JSON per row or note, so that what was measured outlives a part that is killed. deadline: of the clock.
    """

    pack: Pack
    device: str
    folder: Path
    rows: Path
    deadline: float
    clock: Callable[[], float] = field(default=time.monotonic)

    @property
    def on_gpu(self) -> bool:
        """Whether bars that only apply to a GPU are evaluated."""
        return self.device != "cpu"

    @property
    def left(self) -> float:
        """Seconds until the part is killed."""
        return self.deadline - self.clock()

    def row(self, metric: str, value: str, bar: str = "", holds: bool | None = None) -> None:
        """Add a row to the table; holds: None prints it without a verdict."""
        logger.info(f"{metric}: {value}")
        self._append({"row": asdict(Bar(metric, value, bar, holds))})

    def gpu_row(self, metric: str, value: str, bar: str, holds: bool) -> None:
        """Add a row whose bar is for a GPU: without a verdict on the CPU."""
        self.row(metric, value, bar, holds if self.on_gpu else None)

    def note(self, name: str, value: Any) -> None:
        """Add a measurement to the JSON file only."""
        self._append({"note": {name: value}})

    @contextmanager
    def guarded(self, metric: str) -> Iterator[None]:
        """Turn an exception inside the block into a row that does not hold; the other rows continue."""
        try:
            yield
        except Exception as error:
            self.note(f"failed: {metric}", traceback.format_exc())
            self.row(metric, f"failed: {brief(error)}", "", holds=False)

    def _append(self, line: dict[str, Any]) -> None:
        with self.rows.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def brief(error: Exception) -> str:
    """Format an error as one short line for a table."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__


def read_rows(path: Path) -> tuple[list[Bar], dict[str, Any]]:
    """Return the rows and notes of a part so far; a line that was truncated by its end is left out."""
    bars: list[Bar] = []
    notes: dict[str, Any] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            content = json.loads(line)
        except ValueError:
            continue
        if "row" in content:
            bars.append(Bar(**content["row"]))
        else:
            notes |= content["note"]
    return bars, notes

"""What a review must be like for a model to learn from it."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pandera.pandas as pa
from pandera.errors import SchemaErrors

from sentiment.params.data import ReviewChecks

_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f\ufffd]")
"""Control characters other than white space, and what stands where bytes could not be decoded."""


@dataclass(frozen=True)
class Fault:
    """A row that fails, by its position in the batch, and every reason."""

    position: int
    reason: str


class RowChecks:
    """The schema that each review must fit, after its text was normalized."""

    def __init__(self, params: ReviewChecks) -> None:
        self._schema = pa.DataFrameSchema(
            {
                "text": pa.Column(
                    str,
                    [
                        _check(lambda text: text.str.len() > 0, "no text"),
                        _check(
                            lambda text: (text.str.len() == 0) | (text.str.len() >= params.shortest),
                            f"shorter than {params.shortest} characters",
                        ),
                        _check(
                            lambda text: text.str.len() <= params.longest,
                            f"longer than {params.longest} characters",
                        ),
                        _check(
                            lambda text: text.map(_control_share) <= params.control_share,
                            f"more than {params.control_share:.1%} control or undecodable characters",
                        ),
                    ],
                ),
                "label": pa.Column(
                    "Int8", _check(lambda label: label.isin([0, 1]), "label is not 0 or 1"), nullable=True
                ),
            }
        )

    def faults(self, reviews: pd.DataFrame) -> Iterator[Fault]:
        """Yield the rows that fail, in order. reviews: columns text (str) and label (Int8), any index."""
        try:
            self._schema.validate(reviews.reset_index(drop=True), lazy=True)
        except SchemaErrors as error:
            cases = error.failure_cases
            by_row = cases.groupby(cases["index"].astype(int), sort=True)["check"]
            for position, reasons in by_row:
                yield Fault(int(str(position)), ", ".join(reasons))


def _check(condition: Callable[["pd.Series[Any]"], "pd.Series[bool]"], reason: str) -> pa.Check:
    return pa.Check(condition, name=reason, error=reason)


def _control_share(text: str) -> float:
    return len(_CONTROL.findall(text)) / max(1, len(text))

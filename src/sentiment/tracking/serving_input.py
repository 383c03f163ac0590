"""What the served model accepts: text in every row. All else is refused in a plain sentence."""

import functools
import json
from collections.abc import Callable
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, INVALID_PARAMETER_VALUE
from mlflow.pyfunc import scoring_server

TEXT = "text"

ROW_FORMATS = ("inputs", "instances")
"""Formats of a request whose values MLflow casts to strings: null would be the review `None`, 1 be `1`."""


class AnsweredError(MlflowException):
    """An error that is one sentence to the caller: no stack trace, no echo of the request, no server path."""

    def __init__(self, sentence: str, error_code: int = INVALID_PARAMETER_VALUE) -> None:
        super().__init__(sentence, error_code=error_code)
        self.sentence = sentence

    def serialize_as_json(self) -> str:
        """Return the body of the answer; `message` would hold what the scoring server puts before it."""
        return json.dumps({"error_code": self.error_code, "message": self.sentence})


def internal_error() -> AnsweredError:
    """Return the answer for an error that is not the caller's; the server's log has the details."""
    return AnsweredError("The model failed on this request; the server's log says why.", INTERNAL_ERROR)


def texts_of(table: pd.DataFrame) -> list[str]:
    """Return the column `text`.

    Raises:
        AnsweredError: there is no such column, or another one, or no row, or a value is not text.
    """
    columns = [str(column) for column in table.columns]
    if TEXT not in columns:
        found = f"found {', '.join(columns)}" if columns else "found none"
        raise AnsweredError(f"The column `{TEXT}` is missing: {found}.")
    if len(columns) > 1:
        raise AnsweredError(f"One column is expected, `{TEXT}`: found {', '.join(columns)}.")
    values = table[TEXT].tolist()
    if not values:
        raise AnsweredError("There is no row to score.")
    for row, value in enumerate(values, start=1):
        if not isinstance(value, str):
            raise AnsweredError(f"The column `{TEXT}` must hold text: row {row} holds {_kind(value)}.")
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise AnsweredError(f"Row {row} holds half a surrogate pair, which is no text.") from None
    return values


def answer_in_sentences() -> None:
    """Let this process's scoring server check a request before it casts the values to strings.

    By default it answers what it cannot read with a stack trace. MLflow offers no other place for either; the
    model is logged with the version of MLflow that it is served by.
    """
    scoring_server.infer_and_parse_data = _parse_json
    scoring_server.parse_csv_input = _reading("a CSV table with a header", _parse_csv)
    scoring_server.parse_parquet_input = _reading("a Parquet table", _parse_parquet)


_parse_table = scoring_server.infer_and_parse_data
_parse_csv = scoring_server.parse_csv_input
_parse_parquet = scoring_server.parse_parquet_input


def _parse_json(data: dict[str, Any], schema: object = None) -> pd.DataFrame:
    if len(data) == 1 and (name := next(iter(data))) in ROW_FORMATS:
        table = _table_of(data[name], name)
    else:
        table = _parse_table(data)
    return pd.DataFrame({TEXT: texts_of(table)})


def _table_of(values: Any, name: str) -> pd.DataFrame:
    """Return what `inputs` or `instances` holds: texts, rows or columns."""
    if isinstance(values, dict):
        values = {column: value if isinstance(value, list) else [value] for column, value in values.items()}
    elif not isinstance(values, list):
        values = {TEXT: [values]}
    elif not any(isinstance(value, dict) for value in values):
        values = {TEXT: values}
    elif not all(isinstance(value, dict) for value in values):
        raise AnsweredError(f"`{name}` mixes rows with column names and values without.")
    try:
        return pd.DataFrame(values, dtype=object)
    except ValueError:
        raise AnsweredError(f"The columns of `{name}` differ in length.") from None


def _reading(kind: str, parse: Callable[..., pd.DataFrame]) -> Callable[..., pd.DataFrame]:
    @functools.wraps(parse)
    def read(*args: Any, **kwargs: Any) -> pd.DataFrame:
        try:
            table = parse(*args, **kwargs)
        except MlflowException:
            raise AnsweredError(f"The request is not {kind}.") from None
        return pd.DataFrame({TEXT: texts_of(table)})

    return read


def _kind(value: object) -> str:
    if value is None or value is pd.NA or value != value:  # noqa: PLR0124  # NaN alone differs from itself
        return "null"
    kinds = {list: "a list", dict: "an object", bool: "a boolean", int: "a number", float: "a number"}
    return kinds.get(type(value), f"a value of type {type(value).__name__}")

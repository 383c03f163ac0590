"""Validation of requests to the served model, with error messages of one sentence."""

import json
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, INVALID_PARAMETER_VALUE
from mlflow.pyfunc import scoring_server

TEXT = "text"

ROW_FORMATS = ("inputs", "instances")
"""Request formats whose values MLflow casts to strings: null would become the text `None`, and 1 `1`."""


class RequestError(MlflowException):
    """Error response of one sentence, without a stack trace, parts of the request or paths on the server."""

    def __init__(self, reason: str, error_code: int = INVALID_PARAMETER_VALUE) -> None:
        super().__init__(reason, error_code=error_code)
        self.reason = reason

    def serialize_as_json(self) -> str:
        """Return the body of the response, without the prefix that the scoring server adds to `message`."""
        return json.dumps({"error_code": self.error_code, "message": self.reason})


def build_internal_error() -> RequestError:
    """Build the response for an error that the request did not cause; the server's log has the details."""
    return RequestError("The model failed on this request; see the server's log.", INTERNAL_ERROR)


def extract_texts(table: pd.DataFrame) -> list[str]:
    """Return the values of the column `text`.

    Raises:
        RequestError: the column is missing, there are other columns or no rows, or a value is not text.
    """
    columns = [str(column) for column in table.columns]
    if TEXT not in columns:
        found = f"found {', '.join(columns)}" if columns else "found none"
        raise RequestError(f"The column `{TEXT}` is missing: {found}.")
    if len(columns) > 1:
        raise RequestError(f"One column is expected, `{TEXT}`: found {', '.join(columns)}.")
    values = table[TEXT].tolist()
    if not values:
        raise RequestError("The request has no row to predict.")
    for row, value in enumerate(values, start=1):
        if not isinstance(value, str):
            raise RequestError(
                f"The column `{TEXT}` must hold text: row {row} holds {_describe_type(value)}."
            )
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise RequestError(f"Row {row} holds an unpaired surrogate, which is not valid text.") from None
    return values


def validate_requests() -> None:
    """Make MLflow's scoring server validate requests before it casts their values to strings.

    By default, the server casts values of any type to strings, and responds with a stack trace to a request
    that it cannot parse. MLflow has no hook for validation, so this function replaces the server's parsers.
    The logged model pins the version of MLflow that serves it.
    """
    scoring_server.infer_and_parse_data = _parse_json
    scoring_server.parse_csv_input = _parse_csv
    scoring_server.parse_parquet_input = _parse_parquet


_parse_table = scoring_server.infer_and_parse_data
_parse_parquet_table = scoring_server.parse_parquet_input


def _parse_json(data: dict[str, Any], schema: object = None) -> pd.DataFrame:
    if len(data) == 1 and (name := next(iter(data))) in ROW_FORMATS:
        table = _build_table(data[name], name)
    else:
        table = _parse_table(data)
    return pd.DataFrame({TEXT: extract_texts(table)})


def _build_table(values: Any, name: str) -> pd.DataFrame:
    """Build a table from the content of `inputs` or `instances`: texts, rows or columns."""
    if isinstance(values, dict):
        values = {column: value if isinstance(value, list) else [value] for column, value in values.items()}
    elif not isinstance(values, list):
        values = {TEXT: [values]}
    elif not any(isinstance(value, dict) for value in values):
        values = {TEXT: values}
    elif not all(isinstance(value, dict) for value in values):
        raise RequestError(f"`{name}` mixes objects (rows with column names) and plain values.")
    try:
        return pd.DataFrame(values, dtype=object)
    except ValueError:
        raise RequestError(f"The columns of `{name}` differ in length.") from None


def _parse_csv(csv_input: Any, schema: object = None) -> pd.DataFrame:
    """Parse a CSV table of texts.

    Pandas would make an index of the fields that exceed the header, and skip empty lines, so that it would
    predict the end of an unquoted text with commas, and predictions would not be those of their lines.
    """
    try:
        table = pd.read_csv(csv_input, dtype=str, skip_blank_lines=False)
    except ValueError:  # pandas raises subclasses of it
        raise RequestError("The request is not a CSV table with a header.") from None
    if not isinstance(table.index, pd.RangeIndex):
        raise RequestError("A row has more fields than the header: texts with commas must be in quotes.")
    return pd.DataFrame({TEXT: extract_texts(table)})


def _parse_parquet(parquet_input: Any) -> pd.DataFrame:
    try:
        table = _parse_parquet_table(parquet_input)  # type: ignore[no-untyped-call]
    except MlflowException:
        raise RequestError("The request is not a Parquet table.") from None
    return pd.DataFrame({TEXT: extract_texts(table)})


def _describe_type(value: object) -> str:
    if value is None or value is pd.NA or value != value:  # noqa: PLR0124  # NaN alone differs from itself
        return "null"
    kinds = {list: "a list", dict: "an object", bool: "a boolean", int: "a number", float: "a number"}
    return kinds.get(type(value), f"a value of type {type(value).__name__}")

"""Files of reviews, and the parameters that read them, made for a test."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from ruamel.yaml import YAML

from tests.project import ROOT

COMPRESSION = {".gz": "gzip", ".zst": "zstd"}


def write_bytes(path: Path, content: bytes) -> Path:
    """Write content, compressed according to the name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.output_stream(str(path), compression=COMPRESSION.get(path.suffix)) as stream:
        stream.write(content)
    return path


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows in the format and compression of the file name."""
    kind = next(suffix for suffix in reversed(path.suffixes) if suffix not in COMPRESSION)
    if kind == ".parquet":
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
        return path
    if kind == ".jsonl":
        return write_bytes(path, "".join(json.dumps(row) + "\n" for row in rows).encode())
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter="\t" if kind == ".tsv" else ",")
    writer.writeheader()
    writer.writerows(rows)
    return write_bytes(path, text.getvalue().encode())


def files_source(*paths: str, **changes: Any) -> dict[str, Any]:
    """A source of files with the columns text and label."""
    return {
        "kind": "files",
        "name": "mine",
        "paths": list(paths),
        "columns": {"text": "text", "label": "label"},
        "labels": {"0": 0, "1": 1},
        **changes,
    }


def download_section(**changes: Any) -> dict[str, Any]:
    """The project's own `download`, changed; `checks` by key."""
    section = dict(YAML(typ="safe").load(ROOT / "params.yaml")["download"])
    checks = {**section["checks"], **changes.pop("checks", {})}
    return {**section, **changes, "checks": checks}


def write_params(folder: Path, download: Mapping[str, Any]) -> None:
    """Write the project's own params.yaml with another `download`."""
    content = YAML(typ="safe").load(ROOT / "params.yaml")
    YAML().dump({**content, "download": dict(download)}, folder / "params.yaml")

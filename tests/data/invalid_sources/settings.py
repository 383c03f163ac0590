"""Sections of params.yaml that describe no sources, or not these."""

from typing import Any

from tests.data.invalid_sources import Case, case
from tests.data.source_files import files_source

ARCHIVE = {"kind": "imdb", "urls": ["https://example.com/a.tar.gz"], "checksum": None}


def _invalid_params(title: str, changes: dict[str, Any], *messages: str) -> Case:
    return case(title, lambda _: changes, "params.yaml: 1 validation error", *messages)


def _source(title: str, changes: dict[str, Any], *messages: str) -> Case:
    return _invalid_params(title, {"sources": [{**files_source("a.csv"), **changes}]}, *messages)


CASES = [
    _invalid_params("no sources", {"sources": []}, "download.sources: ", "at least 1 item"),
    _invalid_params("sources are no list", {"sources": 3}, "download.sources: ", "must be a list (found 3)"),
    _invalid_params(
        "unknown kind",
        {"sources": [{"kind": "kaggle"}]},
        "download.sources.0.kind: must be one of",
        "'kaggle'",
    ),
    _invalid_params(
        "no kind", {"sources": [{"name": "mine"}]}, "download.sources.0.kind: required key is missing"
    ),
    _invalid_params(
        "checksum without its kind",
        {"sources": [{**ARCHIVE, "checksum": "0" * 32}]},
        "download.sources.0.checksum: ",
        "md5:",
    ),
    _invalid_params(
        "MD5 that is too short", {"sources": [{**ARCHIVE, "checksum": "md5:12"}]}, "sources.0.checksum: "
    ),
    _invalid_params(
        "no mirrors", {"sources": [{**ARCHIVE, "urls": []}]}, "download.sources.0.urls: ", "at least 1 item"
    ),
    _invalid_params(
        "no limit at all",
        {"sources": [{**ARCHIVE, "limits": {"members": 0}}]},
        "download.sources.0.limits.members: must be greater than 0 (found 0)",
    ),
    _invalid_params(
        "same name twice",
        {"sources": [files_source("a.csv"), files_source("b.csv")]},
        "download: duplicate source name: mine",
    ),
    _invalid_params(
        "same archive twice",
        {"sources": [ARCHIVE, {**ARCHIVE, "name": "again"}]},
        "download: sources imdb and again have a path or URL in common",
    ),
    _invalid_params(
        "same file twice",
        {"sources": [files_source("a.csv", "b.csv"), files_source("b.csv", name="again")]},
        "download: sources mine and again have a path or URL in common",
    ),
    _invalid_params(
        "package twice",
        {"sources": [{"kind": "package"}, {"kind": "package", "name": "again"}]},
        "download: sources package and again are the same package",
    ),
    _source("no paths", {"paths": []}, "download.sources.0.paths: ", "at least 1 item"),
    _source("empty path", {"paths": [""]}, "download.sources.0.paths.0: ", "at least 1 character"),
    _source(
        "label mapped to 2",
        {"labels": {"bad": 0, "good": 2}},
        "sources.0.labels.good: must be 0 or 1 (found 2)",
    ),
    _source("no labels", {"labels": {}}, "download.sources.0.labels: ", "at least 1 item"),
    _source("no label", {"labels": {None: 0}}, "sources.0.labels: the key None must be a string"),
    _source(
        "label in two spellings",
        {"labels": {1: 1, "1": 0}},
        "sources.0.labels: duplicate label 1, written in two notations",
    ),
    _source("column without a name", {"columns": {"text": "", "label": "label"}}, "sources.0.columns.text: "),
    _source(
        "quoting that csv has not", {"quoting": "all"}, "quoting: must be 'none' or 'minimal' (found 'all')"
    ),
    _source("two quote characters", {"quote_character": "''"}, "quote_character: ", "at most 1 character"),
    _source("no escape character", {"escape_character": ""}, "escape_character: ", "at least 1 character"),
    _source(
        "quote that is the delimiter",
        {"quote_character": ","},
        "quote_character must not be the delimiter",
    ),
    _source(
        "escape that is a line break",
        {"escape_character": "\n"},
        "escape_character must not be the delimiter or a line break",
    ),
    _source(
        "escape that is the quote",
        {"escape_character": '"'},
        "escape_character must differ from quote_character",
    ),
    _source(
        "quote where nothing is quoted",
        {"quoting": "none", "quote_character": "'"},
        "quote_character has no effect with quoting: none",
    ),
    _source(
        "quoting of JSON Lines", {"format": "jsonl", "quoting": "none"}, "apply to csv and tsv, not to jsonl"
    ),
    _source(
        "escape in Parquet",
        {"format": "parquet", "escape_character": "\\"},
        "apply to csv and tsv, not to parquet",
    ),
    _source(
        "unknown role", {"role": "test"}, "download.sources.0.role: must be 'all' or 'train' (found 'test')"
    ),
    _source("name with a space", {"name": "My reviews"}, "download.sources.0.name: "),
    _source(
        "unknown format",
        {"format": "xlsx"},
        "download.sources.0.format: must be 'auto', 'csv'",
        "found 'xlsx'",
    ),
    _source("column not named", {"columns": {"text": "text"}}, "download.sources.0.columns.label: required"),
    _source("misspelt key", {"lables": {}}, "download.sources.0.lables: unknown key", "valid keys: "),
    _source(
        "checksum of two files",
        {"paths": ["a.csv", "b.csv"], "checksum": "md5:" + "0" * 32},
        "download.sources.0: checksum applies to a single file",
    ),
    _invalid_params(
        "bad rows",
        {"checks": {"bad_rows": "drop"}},
        "download.checks.bad_rows: must be 'stop' or 'quarantine'",
    ),
    _invalid_params(
        "imbalance",
        {"checks": {"imbalance": 0.9}},
        "download.checks.imbalance: must be less than or equal to 0.5",
    ),
    _invalid_params("limit", {"limit": 5}, "download.limit: must be greater than or equal to 20 (found 5)"),
]

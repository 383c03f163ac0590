"""What is named of two runs' outputs that differ."""

import json
from pathlib import Path
from typing import Any

import pytest

from sentiment.reproduction.differences import Difference, OutputsOnDisk, find_difference

Content = dict[str, str]


def _write(root: Path, files: Content) -> OutputsOnDisk:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return OutputsOnDisk(root)


def _find(tmp_path: Path, path: str, before: Content, after: Content) -> Difference | None:
    return find_difference(path, _write(tmp_path / "before", before), _write(tmp_path / "after", after))


@pytest.mark.parametrize(
    ("path", "before", "after", "message"),
    [
        (
            "m.json",
            '{"a": {"b": 1}, "c": [1, 2]}',
            '{"a": {"b": 2}, "c": [1, 3]}',
            "a.b was 1, is 2; c[1] was 2",
        ),
        ("m.json", '{"a": 1}', '{"b": 1}', "a was 1, is missing; b was missing, is 1"),
        ("m.json", '{"a": 1}', '{"a": 1.0}', "a was 1, is 1.0"),
        ("m.json", '{"a":1}', '{"a": 1}', "differs (7 and 8 bytes)"),
        ("m.json", "{", "[", "differs (1 and 1 bytes)"),
        ("t.csv", "x,y\n1,2\n", "x,y\n1,3\n", "y in row 1 was 2, is 3"),
        ("t.csv", "x\n1\n", "x\n1\n2\n", "x in row 2 was missing, is 2"),
        ("t.csv", "x\n1\n2\n3\n4\n5\n", "x\n2\n3\n4\n5\n6\n", "and 2 more"),
        ("weights", "abc", "abcd", "differs (3 and 4 bytes)"),
    ],
)
def test_values_that_differ_are_named(
    path: str, before: str, after: str, message: str, tmp_path: Path
) -> None:
    difference = _find(tmp_path, path, {path: before}, {path: after})
    assert difference is not None
    assert message in str(difference)


def test_first_file_of_a_folder_is_named(tmp_path: Path) -> None:
    before = {"plots/a/1.csv": "x\n1\n", "plots/b.csv": "x\n1\n", "plots/c.csv": "x\n"}
    assert _find(tmp_path, "plots", before, before) is None
    difference = _find(tmp_path, "plots", before, {**before, "plots/b.csv": "x\n2\n"})
    assert difference == Difference("plots/b.csv", "x in row 1 was 1, is 2")
    (tmp_path / "after/plots/a/1.csv").unlink()
    assert str(_find(tmp_path, "plots", {}, {})) == "plots/a/1.csv: was not written again"
    assert str(_find(tmp_path, "models", {"models/x": ""}, {})) == "models: was not written"
    assert "nor in DVC's cache" in str(_find(tmp_path, "reports", {}, {"reports/x": ""}))


def test_digests_of_the_code_are_distinguished_from_results(tmp_path: Path) -> None:
    def files(code: str, study: str, auc: float) -> Content:
        origin: dict[str, Any] = {"params": "p", "data": "d", "code": code, "study": study}
        return {
            "models/tuned/config.json": json.dumps({"origin": origin}),
            "models/selected/config.json": json.dumps(
                {"origin": origin, "calibration": {"temperature": 1.0}}
            ),
            "reports/tune/search.html": f"<h1>{study}</h1> {auc}",
        }

    before = files("c1", "s1", 0.9)
    for path in ("models/selected", "models/tuned/config.json", "reports/tune"):
        difference = _find(tmp_path, path, before, files("c2", "s2", 0.9))
        assert difference is not None
        assert difference.is_digest_only
    difference = _find(tmp_path, "reports/tune", before, files("c2", "s2", 0.91))
    assert difference is not None
    assert not difference.is_digest_only

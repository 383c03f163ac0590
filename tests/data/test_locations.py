"""Paths and patterns are expanded to files."""

from pathlib import Path

import fsspec
import pytest

from sentiment.data.download import fetch
from sentiment.data.locations import expand_pattern
from sentiment.data.review_files import list_distinct_files, read_files
from sentiment.errors import UserError
from sentiment.params.sources import FilesSource
from tests.data.source_files import files_source


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository in a folder whose name is a pattern of the folder beside it."""
    for name in ("proj[1]", "proj1"):
        (tmp_path / name / ".git").mkdir(parents=True)
        _touch(tmp_path / name, "mine/a.csv")
    _touch(tmp_path / "proj1", "mine/b.csv")
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(tmp_path / "proj[1]")
    return tmp_path / "proj[1]"


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"text,label\n{name},1\n")


def test_pattern_never_applies_to_the_name_of_the_repository(root: Path) -> None:
    assert expand_pattern("mine/*.csv") == ["mine/a.csv"]
    assert expand_pattern(f"{root}/mine/*.csv") == [f"{root}/mine/a.csv"]
    assert expand_pattern(f"file://{root}/mine/*.csv") == [f"{root}/mine/a.csv"]
    assert expand_pattern(f"{(root / 'mine').as_uri()}/*.csv") == [f"{root}/mine/a.csv"]


@pytest.mark.parametrize("name", ["a [1].csv", "a?.csv", "*.csv", "[!a].csv", "**"])
def test_existing_file_has_priority_over_a_pattern(name: str, root: Path) -> None:
    _touch(root, name, "a 1.csv", "ab.csv", "b.csv")
    assert expand_pattern(name) == [name]
    assert fetch(expand_pattern(name), None).read_text().splitlines()[1] == f"{name},1"


def test_existing_folder_has_priority_over_a_pattern(root: Path) -> None:
    _touch(root, "week [1]/a.csv", "week 1/b.csv")
    assert expand_pattern("week [1]/*.csv") == ["week [1]/a.csv"]
    assert expand_pattern("week [12]/*.csv") == ["week 1/b.csv"]


def test_hidden_files_need_an_explicit_dot(root: Path) -> None:
    _touch(root, "in/a.csv", "in/._a.csv", "in/.ipynb_checkpoints/a.csv", "in/b/.c/d.csv", "in/b/e.csv")
    assert expand_pattern("in/*.csv") == ["in/a.csv"]
    assert expand_pattern("in/*") == ["in/a.csv"]
    assert expand_pattern("in/**/*.csv") == ["in/a.csv", "in/b/e.csv"]
    assert expand_pattern("in/**") == ["in/a.csv", "in/b/e.csv"]
    assert expand_pattern("in/.*/*.csv") == ["in/.ipynb_checkpoints/a.csv"]
    assert expand_pattern("in/._*.csv") == ["in/._a.csv"]
    assert expand_pattern("in/**/.c/*.csv") == ["in/b/.c/d.csv"]
    with pytest.raises(UserError, match="matches no file"):
        expand_pattern("in/[.]_*.csv")


def test_folders_do_not_match_and_broken_links_do(root: Path) -> None:
    _touch(root, "in/a.csv", "in/b.csv/c.txt")
    (root / "in" / "lost.csv").symlink_to("nowhere")
    assert expand_pattern("in/*.csv") == ["in/a.csv", "in/lost.csv"]
    with pytest.raises(UserError, match=r"in/lost\.csv: no such file"):
        fetch(["in/lost.csv"], None)


def test_recursive_wildcard_does_not_follow_links(root: Path) -> None:
    _touch(root, "in/a/b.csv")
    (root / "in" / "a" / "again").symlink_to("..")
    assert expand_pattern("in/**/*.csv") == ["in/a/b.csv"]


def test_pattern_may_lead_out_of_the_repository(root: Path) -> None:
    assert expand_pattern("../proj1/mine/*.csv") == ["../proj1/mine/a.csv", "../proj1/mine/b.csv"]


def test_recursive_wildcard_inside_a_component(root: Path) -> None:
    with pytest.raises(UserError, match=r"mine/\*\*\.csv: invalid pattern"):
        expand_pattern("mine/**.csv")


def test_file_url_is_decoded_once_and_has_no_query(root: Path) -> None:
    _touch(root, "a b.csv", "a%20b.csv", "a[1].csv", "a1.csv", "x#y?.csv", "x#yz.csv")
    base = f"file://{root}"
    assert fetch(expand_pattern(f"{base}/a%20b.csv"), None).name == "a b.csv"
    assert fetch(expand_pattern(f"{base}/a%2520b.csv"), None).name == "a%20b.csv"
    assert expand_pattern(f"{base}/a%5B1%5D*.csv") == [f"{root}/a[1].csv"]
    assert fetch(expand_pattern(f"{base}/x#y?.csv"), None).name == "x#y?.csv"
    assert expand_pattern(f"{base}/x#?z.csv") == [f"{root}/x#yz.csv"]
    with pytest.raises(UserError, match=r"has the host mine; .* file:///folder/name"):
        expand_pattern("file://mine/*.csv")


def test_colon_in_a_name_is_not_a_protocol(root: Path) -> None:
    _touch(root, "week:47.csv", "week:47/a.csv")
    assert fetch(expand_pattern("week:47.csv"), None).name == "week:47.csv"
    assert expand_pattern("week:47/*.csv") == ["week:47/a.csv"]


def test_patterns_in_an_object_store() -> None:
    store = fsspec.filesystem("memory")
    names = ["a.csv", ".a.csv", ".ipynb_checkpoints/a.csv", "sub/b.csv", "d.csv/e.txt", "x[1].csv", "x1.csv"]
    for name in names:
        store.pipe(f"/matching/{name}", b"text,label\nA,1\n")
    base = "memory://matching"
    try:
        assert expand_pattern(f"{base}/*.csv") == [
            f"{base}/{name}" for name in ("a.csv", "x1.csv", "x[1].csv")
        ]
        assert expand_pattern(f"{base}/**/b*.csv") == [f"{base}/sub/b.csv"]
        assert expand_pattern(f"{base}/.a*") == [f"{base}/.a.csv"]
        assert expand_pattern(f"{base}/x[1].csv") == [f"{base}/x[1].csv"]
        assert fetch(expand_pattern(f"{base}/sub/*"), None).read_bytes().endswith(b"A,1\n")
        with pytest.raises(UserError, match="matches no file"):
            expand_pattern(f"{base}/?ipynb_checkpoints/*")
    finally:
        store.rm("/matching", recursive=True)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("mine/a.csv", "mine/*.csv"),
        ("mine/a.csv", "mine/a.csv"),
        ("mine/a.csv", "mine/../mine/a.csv"),
        ("mine/*.csv", "*/a.csv"),
        ("mine/a.csv", "linked/a.csv"),
    ],
)
def test_file_that_is_matched_twice_is_an_error(one: str, other: str, root: Path) -> None:
    (root / "linked").symlink_to("mine")
    both = FilesSource.model_validate(files_source(one, other))
    with pytest.raises(UserError, match=r"a\.csv: matched twice, by mine: "):
        list(read_files(both))
    with pytest.raises(UserError, match=r"a\.csv: matched twice, by first: .* and by second: "):
        list_distinct_files([("first", [one]), ("second", [other])])


def test_two_links_to_one_cached_file_are_two_files(root: Path) -> None:
    """DVC links files with equal content to one, and whether it does is a setting of the machine."""
    for name in ("b.csv", "c.csv"):
        (root / name).symlink_to(root / "mine" / "a.csv")
    source = FilesSource.model_validate(files_source("b.csv", "c.csv"))
    assert sum(batch.num_rows for batch in read_files(source)) == 2

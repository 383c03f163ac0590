from pathlib import Path

import pyarrow as pa
import pytest

from sentiment.data import imdb
from sentiment.data.imdb import SCHEMA, read_imdb
from sentiment.errors import UserError
from sentiment.params.sources import ArchiveLimits
from tests.data.archives import film, imdb_members, write_archive


@pytest.fixture
def members(reviews: pa.Table) -> dict[str, bytes]:
    return imdb_members(reviews)


def table(path: Path) -> pa.Table:
    return pa.Table.from_batches(read_imdb(path, ArchiveLimits()), SCHEMA)


def test_reviews_are_in_the_order_of_the_archive(members: dict[str, bytes], tmp_path: Path) -> None:
    found = table(write_archive(tmp_path / "a.tar.gz", members))
    expected = [name for name in members if name.rsplit("/", 1)[1][0].isdigit()]
    assert found["row"].to_pylist() == expected
    assert found["text"].to_pylist() == [members[name].decode() for name in expected]


def test_label_split_and_film_are_those_of_the_member(members: dict[str, bytes], tmp_path: Path) -> None:
    rows = {row["row"]: row for row in table(write_archive(tmp_path / "a.tar.gz", members)).to_pylist()}
    seen = {name: (row["label"], row["split"], row["group"]) for name, row in rows.items()}
    assert seen["aclImdb/train/pos/7_9.txt"] == (1, "train", film(7))
    assert seen["aclImdb/train/neg/0_2.txt"] == (0, "train", film(0))
    assert seen["aclImdb/test/neg/12_2.txt"] == (0, "test", film(12))
    assert seen["aclImdb/train/unsup/3_0.txt"] == (None, "unlabelled", None)


def test_unlabelled_reviews_have_films_if_the_archive_lists_them(
    members: dict[str, bytes], tmp_path: Path
) -> None:
    members["aclImdb/train/urls_unsup.txt"] = members["aclImdb/train/urls_neg.txt"]
    rows = table(write_archive(tmp_path / "a.tar.gz", members)).to_pylist()
    groups = {row["row"]: row["group"] for row in rows}
    assert groups["aclImdb/train/unsup/7_0.txt"] == film(7)


def test_batches_are_bounded(
    members: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_archive(tmp_path / "a.tar.gz", members)
    monkeypatch.setattr(imdb, "ROWS_PER_BATCH", 60)
    assert [len(batch) for batch in read_imdb(path, ArchiveLimits())] == [60, 60, 60, 30]
    monkeypatch.setattr(imdb, "BYTES_PER_BATCH", 1)
    assert {len(batch) for batch in read_imdb(path, ArchiveLimits())} == {1}


@pytest.mark.parametrize("name", ["train/urls_pos.txt", "test/urls_neg.txt"])
def test_missing_list_of_films_is_named(name: str, members: dict[str, bytes], tmp_path: Path) -> None:
    del members[f"aclImdb/{name}"]
    with pytest.raises(UserError, match=f"aclImdb/{name}, which has the films"):
        table(write_archive(tmp_path / "a.tar.gz", members))


def test_review_without_a_line_in_the_list_is_named(members: dict[str, bytes], tmp_path: Path) -> None:
    members["aclImdb/train/pos/999_9.txt"] = b"Late addition."
    with pytest.raises(UserError, match=r"train/pos/999_9.txt: aclImdb/train/urls_pos.txt has only 50 lines"):
        table(write_archive(tmp_path / "a.tar.gz", members))


def test_line_without_a_film_is_named(members: dict[str, bytes], tmp_path: Path) -> None:
    members["aclImdb/test/urls_pos.txt"] += b"http://example.com/\n"
    with pytest.raises(UserError, match=r"test/urls_pos.txt, line 51: no film id in 'http://example.com/'"):
        table(write_archive(tmp_path / "a.tar.gz", members))


def test_text_that_is_not_utf8_is_named(members: dict[str, bytes], tmp_path: Path) -> None:
    members["aclImdb/test/pos/3_9.txt"] = b"caf\xe9"
    with pytest.raises(UserError, match=r"test/pos/3_9.txt: not UTF-8 text .* at byte 3"):
        table(write_archive(tmp_path / "a.tar.gz", members))


def test_archive_without_reviews_is_an_error(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "a.tar.gz", {"imdb/reviews.txt": b"Good."})
    with pytest.raises(UserError, match="contains no reviews; expected members named aclImdb/"):
        table(path)

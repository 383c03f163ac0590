from pathlib import Path

import pytest

from sentiment.data.imdb import read_reviews_csv
from sentiment.errors import UserError

HEADER = "text,label,source\n"


def test_only_imdb_rows_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(HEADER + '"Good,\nreally",1,imdb\nMeh,0,rotten_tomatoes\n')
    (row,) = read_reviews_csv(tmp_path / "a.csv").to_pylist()
    assert row == {"text": "Good,\nreally", "label": 1, "group": None, "split": None, "row": "a.csv row 1"}


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", HEADER + "good,positive,imdb\n", HEADER + "good,1\n"])
def test_file_with_other_columns_is_an_error(content: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(UserError, match=r"a\.csv: expected a CSV file with the columns text, label"):
        read_reviews_csv(tmp_path / "a.csv")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.csv: no such file"):
        read_reviews_csv(tmp_path / "a.csv")

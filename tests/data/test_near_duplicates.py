"""Re-posted, edited and shortened test reviews are found, and no others."""

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from sentiment.data.imdb import load_package_reviews
from sentiment.data.minhash import (
    SIGNATURE_LENGTH,
    SignatureIndex,
    build_shingles,
    compute_jaccard,
    compute_signatures,
    hash_shingles,
    split_words,
)
from sentiment.data.near_duplicates import (
    MAX_COMPARISONS,
    MAX_PAIRS_PER_REVIEW,
    REPORT_COLUMNS,
    NearDuplicates,
    find_near_duplicates,
)
from sentiment.data.parquet import ORIGIN_SCHEMA

EDITED = 300
"""Test reviews of which an edited copy stands in train."""


@pytest.fixture(scope="module")
def real() -> list[str]:
    """2,000 real reviews."""
    return load_package_reviews()["text"].slice(0, 2_000).to_pylist()


def batches(
    texts: Sequence[str], size: int
) -> Callable[[], Iterable[tuple[NDArray[np.int64], pa.RecordBatch]]]:
    def read() -> Iterator[tuple[NDArray[np.int64], pa.RecordBatch]]:
        for start in range(0, len(texts), size):
            rows = [
                {"text": text, "source": "made", "row": f"row {start + row}"}
                for row, text in enumerate(texts[start : start + size])
            ]
            yield np.arange(start, start + len(rows)), pa.RecordBatch.from_pylist(rows, ORIGIN_SCHEMA)

    return read


def search(
    test: Sequence[str], others: Sequence[str], folder: Path, similarity: float = 0.5, size: int = 700
) -> tuple[NearDuplicates, list[dict[str, str]]]:
    """What is found, and the rows of the report."""
    report = folder / "near.csv"
    splits = ("train", "holdout", "unlabelled")
    with find_near_duplicates(
        batches(test, size), batches(others, size), lambda row: splits[row % 3], similarity, report, folder
    ) as found:
        pass
    with report.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return found, rows


def pairs_in(rows: Iterable[dict[str, str]]) -> dict[tuple[int, int], float]:
    return {
        (int(row["test_row"].split()[1]), int(row["row"].split()[1])): float(row["similarity"])
        for row in rows
    }


def edited(text: str, share: float, words: Sequence[str], rng: np.random.Generator) -> str:
    """Replace, leave out or add before, at random, this share of the words."""
    made: list[str] = []
    for word in text.split():
        if rng.random() >= share:
            made.append(word)
            continue
        other = words[int(rng.integers(len(words)))]
        made += [[other], [], [other, word]][int(rng.integers(3))]
    return " ".join(made)


def test_hashes_are_equal_if_and_only_if_shingles_are(real: list[str]) -> None:
    odd = [
        "",
        "!?",
        "One",
        "Two words",
        "a" * 100,
        "a" * 99 + "b",
        "a" * 23 + "b" + "a" * 76,
        "“Smart” quotes\u2019 naïve Straße",
        "日本の映画 ภาพยนตร์",
        "ΟΔΥΣΣΕΥΣ 10 µm ¾",
        "so\u00adft hy\x01phen",
        "snake_case",
        "\u2028line\u2029",
    ]
    texts = [*odd, *real[:500]]
    hashes, offsets = hash_shingles([text.encode() for text in texts])
    by_shingle: dict[tuple[str, ...], int] = {}
    for text, start, end in zip(texts, offsets[:-1], offsets[1:], strict=True):
        words = split_words(text)
        assert end - start == len(words)
        for position, number in enumerate(hashes[start:end].tolist()):
            shingle = tuple(words[position : position + 3])
            assert by_shingle.setdefault(shingle, number) == number
    assert len(set(by_shingle.values())) == len(by_shingle) > 50_000


def test_words_have_no_case_and_punctuation() -> None:
    assert split_words("“Don\u2019t”, she SAID: 10/10 <br /> naïve") == [
        "don",
        "t",
        "she",
        "said",
        "10",
        "10",
        "br",
        "naïve",
    ]
    assert split_words("日本の映画。") == list("日本の映画")
    assert split_words("Très BON") == split_words("tre\u0300s bon") == ["très", "bon"]


def test_shingles_of_short_texts() -> None:
    assert build_shingles("Good, good film") == {("good", "good", "film"), ("good", "film"), ("film",)}
    assert build_shingles("...") == set()
    assert compute_jaccard(build_shingles("a b"), build_shingles("a b")) == 1
    assert compute_jaccard(set(), set()) == 0


def test_signatures_estimate_jaccard_similarity(real: list[str]) -> None:
    rng = np.random.default_rng(0)
    words = [word for text in real[:50] for word in text.split()]
    errors = []
    for text in real[:200]:
        other = edited(text, float(rng.uniform(0, 0.3)), words, rng)
        one, two = compute_signatures([text.encode(), other.encode()])
        errors.append(
            float((one == two).mean()) - compute_jaccard(build_shingles(text), build_shingles(other))
        )
    assert abs(np.mean(errors)) < 0.02
    assert np.std(errors) < 0.5 / SIGNATURE_LENGTH**0.5 + 0.02


@pytest.mark.parametrize("share", [0.02, 0.05, 0.1, 0.15, 0.2])
def test_edited_copies_are_found_with_the_required_recall(
    share: float, real: list[str], tmp_path: Path
) -> None:
    """Against the exact similarity of each copy to its original."""
    rng = np.random.default_rng(int(share * 100))
    words = [word for text in real[:300] for word in text.split()]
    test = real[:EDITED]
    copies = [edited(text, share, words, rng) for text in test]
    exact = [
        compute_jaccard(build_shingles(text), build_shingles(copy))
        for text, copy in zip(test, copies, strict=True)
    ]
    for threshold in (0.3, 0.5, 0.8):
        alike = {(row, row + 700) for row, found in enumerate(exact) if found >= threshold}
        found, rows = search(test, real[EDITED : EDITED + 700] + copies, tmp_path, threshold)
        listed = pairs_in(rows)
        for (one, two), similarity in listed.items():
            assert similarity >= threshold  # nothing but what is alike
            if two - 700 == one:
                assert similarity == pytest.approx(exact[one], abs=1e-6)
        if len(alike) >= 20:
            assert len(alike & set(listed)) / len(alike) >= 0.97
        assert found.similar == len({one for one, _ in listed})


@pytest.mark.parametrize(("kept", "least"), [(0.9, 0.99), (0.7, 0.99), (0.6, 0.95), (0.4, 0.0)])
def test_excerpts_of_a_review_are_found(kept: float, least: float, real: list[str], tmp_path: Path) -> None:
    test = real[:EDITED]
    quotes = [" ".join(words[: max(1, int(kept * len(words)))]) for words in map(str.split, test)]
    found, _ = search(test, real[EDITED:900] + quotes, tmp_path)
    assert found.fraction >= least
    if kept < 0.5:
        assert found.fraction < 0.05


def test_result_equals_exact_comparison(real: list[str], tmp_path: Path) -> None:
    test, others = real[:500], real[500:]
    having: dict[tuple[str, ...], list[int]] = {}
    for row, text in enumerate(test):
        for shingle in build_shingles(text):
            having.setdefault(shingle, []).append(row)
    exact = {}
    for row, text in enumerate(others):
        own = build_shingles(text)
        shared = Counter(found for shingle in own for found in having.get(shingle, []))
        for found, count in shared.items():
            similarity = count / (len(own) + len(build_shingles(test[found])) - count) if count > 20 else 0.0
            if similarity >= 0.3:
                exact[found, row] = pytest.approx(similarity, abs=1e-6)
    _, rows = search(test, others, tmp_path, similarity=0.3)
    assert pairs_in(rows) == exact


def test_result_does_not_depend_on_batch_size(real: list[str], tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    others = [edited(text, 0.08, ["film"], rng) for text in real[:600]]
    reports = []
    for size in (37, 700):
        search(real[:600], others, tmp_path, size=size)
        reports.append((tmp_path / "near.csv").read_bytes())
    assert reports[0] == reports[1]
    assert len(reports[0].splitlines()) > 400


def test_report_has_locations_and_closest_pairs_are_sorted(real: list[str], tmp_path: Path) -> None:
    test = [*real[:50]]
    others = [*real[50:90], test[7] + " The end.", test[9].upper() + " indeed"]
    found, rows = search(test, others, tmp_path)
    assert list(rows[0]) == list(REPORT_COLUMNS)
    assert [(row["test_row"], row["split"], row["row"]) for row in rows] == [
        ("row 7", "holdout", "row 40"),
        ("row 9", "unlabelled", "row 41"),
    ]
    assert found.pairs == {"holdout": 1, "unlabelled": 1}
    assert found.fraction == 2 / 50
    closest = [pair.similarity for pair in found.closest]
    assert closest == sorted(closest, reverse=True)
    assert found.compute_metrics()["max_similarity"] == round(closest[0], 6)
    assert not (tmp_path / "test.arrow").exists()


def test_pairs_per_test_review_are_limited(tmp_path: Path) -> None:
    """A form that is filled in thousands of times: candidates by the million must not be held or compared."""
    form = "I watched it on a {} and my rating of this film is as always {} out of a hundred, so help me"
    test = [form.format("Monday", number) for number in range(3_000)]
    others = [form.format("Friday", number) for number in range(3_000)]
    found, rows = search(test, others, tmp_path)
    assert found.similar == 3_000
    assert len(rows) <= MAX_PAIRS_PER_REVIEW * 3_000


def test_review_with_too_many_candidates_is_undecided(tmp_path: Path) -> None:
    words = [f"w{number}" for number in range(600)]
    test = [" ".join(words[:100])]
    nearly = [
        " ".join(words[:63] + words[100 + number : 137 + number]) for number in range(MAX_COMPARISONS + 50)
    ]
    similarities = [compute_jaccard(build_shingles(test[0]), build_shingles(text)) for text in nearly]
    assert 0.4 < min(similarities) <= max(similarities) < 0.5
    found, rows = search(test, nearly, tmp_path)
    assert (found.similar, found.undecided, rows) == (0, 1, [])
    found, _ = search(test, nearly[:20], tmp_path)
    assert (found.similar, found.undecided) == (0, 0)


def test_index_yields_each_candidate_once_and_none_retired() -> None:
    signatures = np.arange(50 * SIGNATURE_LENGTH, dtype=np.uint32).reshape(50, SIGNATURE_LENGTH)
    index = SignatureIndex(signatures, 0.5)
    queries = signatures[[3, 3, 40]].copy()
    queries[1, : SIGNATURE_LENGTH // 3] = 0
    assert [pairs.tolist() for pairs in index.candidates(queries)] == [[[0, 3], [1, 3], [2, 40]]]
    index.retire(np.array([3]))
    assert [pairs.tolist() for pairs in index.candidates(queries)] == [[[2, 40]]]
    assert [pairs.tolist() for pairs in index.candidates(queries[:0])] == [[]]
    nothing = SignatureIndex(signatures[:0], 0.5)
    assert [pairs.tolist() for pairs in nothing.candidates(queries)] == [[]]
    assert MAX_COMPARISONS > MAX_PAIRS_PER_REVIEW

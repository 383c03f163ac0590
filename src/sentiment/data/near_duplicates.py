"""Which reviews outside the test split are almost a test review: a re-posted or lightly edited one.

A model that has learned from such a review has all but seen the test review. Test reviews, the fewer, are
indexed; the others are streamed past them. So of the others nothing is held.
"""

import csv
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sentiment.data.minhash import (
    SIGNATURE_LENGTH,
    SignatureIndex,
    build_shingles,
    compute_jaccard,
    compute_signatures,
)
from sentiment.data.parquet import ORIGIN_SCHEMA, release_freed_memory
from sentiment.files import replacing

REPORT_COLUMNS = ("similarity", "test_source", "test_row", "split", "source", "row")
MAX_EXAMPLES = 10
"""The closest pairs, which an error names."""
MAX_PAIRS_PER_REVIEW = 5
"""Near-duplicates of one test review that are listed; with so many, no more are looked for."""
MAX_COMPARISONS = 200
"""Candidates of one test review that are compared word by word; with none alike, it stays undecided."""
CACHED_SHINGLE_SETS = 1_000

ReviewReader = Callable[[], Iterable[tuple[NDArray[np.int64], pa.RecordBatch]]]
"""Reads reviews anew: positions of rows, and those rows with the columns of ORIGIN_SCHEMA."""


@dataclass(frozen=True)
class Pair:
    """A test review and another review, exactly compared."""

    similarity: float
    test: tuple[str, str]
    split: str
    other: tuple[str, str]

    def __str__(self) -> str:
        return (
            f"{': '.join(self.other)} ({self.split}) has similarity {self.similarity:.2f} with "
            f"{': '.join(self.test)} (test)"
        )


@dataclass
class NearDuplicates:
    """What was found.

    test_reviews: in all. similar: those with a near-duplicate elsewhere. undecided: those with none among the
    candidates that were compared, and more candidates. pairs: listed ones, by the split of the other review.
    closest: the most similar pairs, the closest first.
    """

    test_reviews: int = 0
    similar: int = 0
    undecided: int = 0
    pairs: dict[str, int] = field(default_factory=dict)
    closest: list[Pair] = field(default_factory=list)

    @property
    def fraction(self) -> float:
        """Share of the test reviews that have a near-duplicate elsewhere."""
        return self.similar / max(1, self.test_reviews)

    def metrics(self) -> dict[str, Any]:
        """Return what the metric file says of it."""
        return {
            "test_reviews": self.similar,
            "test_fraction": round(self.fraction, 6),
            "undecided": self.undecided,
            "pairs": dict(sorted(self.pairs.items())),
            "max_similarity": round(self.closest[0].similarity, 6) if self.closest else 0.0,
        }


@contextmanager
def writing_empty_report(report: Path) -> Iterator[None]:
    """Write a report without pairs, since none were looked for; it appears when this ends well."""
    with replacing(report) as temporary:
        temporary.write_text(",".join(REPORT_COLUMNS) + "\n", encoding="utf-8")
        yield


@contextmanager
def find_near_duplicates(
    test: ReviewReader,
    others: ReviewReader,
    split_at: Callable[[int], str],
    similarity: float,
    report: Path,
    folder: Path,
) -> Iterator[NearDuplicates]:
    """Compare the test reviews with all others and yield what was found.

    Args:
        test: The test reviews.
        others: All reviews that shall not be like them.
        split_at: Returns the split of another review by its position.
        similarity: Least Jaccard similarity, of runs of three words, of a near-duplicate.
        report: CSV with REPORT_COLUMNS, a row for each pair; it appears when this ends well.
        folder: Where a file with the test reviews may lie meanwhile.
    """
    with replacing(report) as temporary:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(REPORT_COLUMNS)
            found = NearDuplicates()
            for pair in _find_pairs(test, others, split_at, similarity, folder / "test.arrow", found):
                writer.writerow([f"{pair.similarity:.6f}", *pair.test, pair.split, *pair.other])
        yield found


def _find_pairs(
    test: ReviewReader,
    others: ReviewReader,
    split_at: Callable[[int], str],
    similarity: float,
    path: Path,
    found: NearDuplicates,
) -> Iterator[Pair]:
    """Yield the pairs that are alike, and count them in `found`."""
    with _indexed_test_reviews(test, path) as tested:
        search = _Search(tested, similarity, found)
        for positions, batch in others():
            yield from search.pairs(positions, batch, split_at)
            release_freed_memory()
        search.finish()


@dataclass(frozen=True)
class _TestReviews:
    """Test reviews in a file, of which only what is asked for is in memory."""

    reader: pa.RecordBatchFileReader
    starts: NDArray[np.int64]
    """First review of each batch, and the number of all."""
    signatures: NDArray[np.uint32]

    def __getitem__(self, row: int) -> dict[str, str]:
        batch = int(np.searchsorted(self.starts, row, side="right")) - 1
        (found,) = self.reader.get_batch(batch).slice(row - int(self.starts[batch]), 1).to_pylist()
        return dict(found)


@contextmanager
def _indexed_test_reviews(test: ReviewReader, path: Path) -> Iterator[_TestReviews]:
    signatures, sizes = [np.empty((0, SIGNATURE_LENGTH), np.uint32)], [0]
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, ORIGIN_SCHEMA) as writer:
        for _, batch in test():
            writer.write_batch(batch)
            signatures.append(compute_signatures(batch["text"].cast(pa.binary()).to_pylist()))
            sizes.append(batch.num_rows)
    with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
        yield _TestReviews(reader, np.cumsum(sizes), np.concatenate(signatures))
    path.unlink()


class _Search:
    """The search on its way."""

    def __init__(self, tested: _TestReviews, similarity: float, found: NearDuplicates) -> None:
        self._found = found
        found.test_reviews = len(tested.signatures)
        self._tested = tested
        self._similarity = similarity
        self._index = SignatureIndex(tested.signatures, similarity)
        self._compared = np.zeros(len(tested.signatures), np.uint8)
        self._listed = np.zeros(len(tested.signatures), np.uint8)
        self._shingles = lru_cache(CACHED_SHINGLE_SETS)(lambda row: build_shingles(tested[row]["text"]))

    def pairs(
        self, positions: NDArray[np.int64], batch: pa.RecordBatch, split_at: Callable[[int], str]
    ) -> Iterator[Pair]:
        """Yield the pairs of a test review and one of the batch, in the order of the batch."""
        queries = compute_signatures(batch["text"].cast(pa.binary()).to_pylist())
        for candidates in self._index.candidates(queries):
            done: set[int] = set()
            for query, rows in _group_by_query(candidates):
                own = build_shingles(batch["text"][query].as_py())
                for row in rows:
                    if self._compared[row] >= MAX_COMPARISONS or self._listed[row] >= MAX_PAIRS_PER_REVIEW:
                        done.add(row)
                        continue
                    self._compared[row] += 1
                    similarity = compute_jaccard(own, self._shingles(row))
                    if similarity >= self._similarity:
                        yield self._pair(similarity, row, batch, query, split_at(int(positions[query])))
            self._index.retire(np.fromiter(done, np.int64, len(done)))

    def finish(self) -> None:
        """Count what was not decided."""
        self._found.undecided = int(np.sum((self._compared >= MAX_COMPARISONS) & (self._listed == 0)))

    def _pair(self, similarity: float, row: int, batch: pa.RecordBatch, query: int, split: str) -> Pair:
        test = self._tested[row]
        other = (batch["source"][query].as_py(), batch["row"][query].as_py())
        pair = Pair(similarity, (test["source"], test["row"]), split, other)
        self._found.similar += int(self._listed[row] == 0)
        self._listed[row] += 1
        self._found.pairs[split] = self._found.pairs.get(split, 0) + 1
        # The sort is stable: of pairs that are as close the one found first stays first.
        self._found.closest = sorted([*self._found.closest, pair], key=lambda pair: -pair.similarity)[
            :MAX_EXAMPLES
        ]
        return pair


def _group_by_query(pairs: NDArray[np.int64]) -> Iterator[tuple[int, list[int]]]:
    """Yield each query with its indexed reviews, from pairs in the order of the queries."""
    for query, group in groupby(pairs.tolist(), key=itemgetter(0)):
        yield query, [row for _, row in group]

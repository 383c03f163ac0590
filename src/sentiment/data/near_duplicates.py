"""Search for near-duplicates of test reviews in the other splits, such as re-posted or edited reviews.

A model that is trained on a near-duplicate of a test review has practically seen the test review. The test
reviews, which are fewer, are indexed, and the other reviews are streamed, so that their texts are not held in
memory.
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
from sentiment.errors import UserError
from sentiment.files import atomic_write
from sentiment.params.data import NearDuplicateLimits

REPORT_COLUMNS = ("similarity", "test_source", "test_row", "split", "source", "row")
MAX_EXAMPLES = 10
"""Most similar pairs, which an error message lists."""
MAX_PAIRS_PER_REVIEW = 5
"""Near-duplicates of a test review that are listed, after which its search ends."""
MAX_COMPARISONS = 200
"""Candidates of a test review that are compared exactly. If none of them is similar, it is undecided."""
CACHED_SHINGLE_SETS = 1_000

ReviewReader = Callable[[], Iterable[tuple[NDArray[np.int64], pa.RecordBatch]]]
"""Function that reads reviews from the start: positions of rows, and these rows in ORIGIN_SCHEMA."""


@dataclass(frozen=True)
class Pair:
    """A test review and a near-duplicate of it, each by source and row."""

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
    """Result of the search.

    Attributes:
        test_reviews: Number of test reviews.
        similar: Number of test reviews with a near-duplicate in another split.
        undecided: Number of test reviews with more than MAX_COMPARISONS candidates, of which none is similar.
        pairs: Number of listed pairs, by the split of the other review.
        closest: The most similar pairs in descending order.
    """

    test_reviews: int = 0
    similar: int = 0
    undecided: int = 0
    pairs: dict[str, int] = field(default_factory=dict)
    closest: list[Pair] = field(default_factory=list)

    @property
    def fraction(self) -> float:
        """Fraction of the test reviews with a near-duplicate in another split."""
        return self.similar / max(1, self.test_reviews)

    def compute_metrics(self) -> dict[str, Any]:
        """Return the metrics for `metrics/download.json`."""
        return {
            "test_reviews": self.similar,
            "test_fraction": round(self.fraction, 6),
            "undecided": self.undecided,
            "pairs": dict(sorted(self.pairs.items())),
            "max_similarity": round(self.closest[0].similarity, 6) if self.closest else 0.0,
        }

    def require_few(self, limits: NearDuplicateLimits) -> None:
        """Raise UserError with the most similar pairs if the fraction exceeds the limit."""
        if self.fraction > limits.max_share:
            message = (
                f"reviews: {self.fraction:.1%} of the test reviews have a near-duplicate in another split, "
                f"more than download.checks.near_duplicates.max_share ({limits.max_share:.1%}). Remove them "
                "from the other sources, or increase the limit; for example:"
            )
            raise UserError("\n  ".join([message, *map(str, self.closest)]))


@contextmanager
def writing_empty_report(report: Path) -> Iterator[None]:
    """Write a report without pairs; it is moved into place only if the block succeeds."""
    with atomic_write(report) as temporary:
        temporary.write_text(",".join(REPORT_COLUMNS) + "\n", encoding="utf-8")
        yield


@contextmanager
def find_near_duplicates(
    test: ReviewReader,
    others: ReviewReader,
    get_split: Callable[[int], str],
    similarity: float,
    report: Path,
    folder: Path,
) -> Iterator[NearDuplicates]:
    """Compare the test reviews with all other reviews and yield the result.

    Args:
        test: Reads the test reviews.
        others: Reads the reviews of the other splits.
        get_split: Returns the split of a review in `others` by its position.
        similarity: Minimum Jaccard similarity of the word trigrams of near-duplicates.
        report: CSV with REPORT_COLUMNS, one row per pair. It is moved into place only if the block succeeds.
        folder: Folder for a temporary file with the test reviews.
    """
    with atomic_write(report) as temporary:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(REPORT_COLUMNS)
            found = NearDuplicates()
            for pair in _find_pairs(test, others, get_split, similarity, folder / "test.arrow", found):
                writer.writerow([f"{pair.similarity:.6f}", *pair.test, pair.split, *pair.other])
        yield found


def _find_pairs(
    test: ReviewReader,
    others: ReviewReader,
    get_split: Callable[[int], str],
    similarity: float,
    path: Path,
    found: NearDuplicates,
) -> Iterator[Pair]:
    """Yield the near-duplicate pairs and count them in `found`."""
    with _indexed_test_reviews(test, path) as tested:
        search = _Search(tested, similarity, found)
        for positions, batch in others():
            yield from search.pairs(positions, batch, get_split)
            release_freed_memory()
        search.finish()


@dataclass(frozen=True)
class _TestReviews:
    """Test reviews in a memory-mapped file."""

    reader: pa.RecordBatchFileReader
    starts: NDArray[np.int64]
    """Position of the first review of each batch, and the number of all reviews."""
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
    """State of the search."""

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
        self, positions: NDArray[np.int64], batch: pa.RecordBatch, get_split: Callable[[int], str]
    ) -> Iterator[Pair]:
        """Yield the pairs of a test review and a review of the batch, in the order of the batch."""
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
                        yield self._pair(similarity, row, batch, query, get_split(int(positions[query])))
            self._index.retire(np.fromiter(done, np.int64, len(done)))

    def finish(self) -> None:
        """Count the undecided test reviews."""
        self._found.undecided = int(np.sum((self._compared >= MAX_COMPARISONS) & (self._listed == 0)))

    def _pair(self, similarity: float, row: int, batch: pa.RecordBatch, query: int, split: str) -> Pair:
        test = self._tested[row]
        other = (batch["source"][query].as_py(), batch["row"][query].as_py())
        pair = Pair(similarity, (test["source"], test["row"]), split, other)
        self._found.similar += int(self._listed[row] == 0)
        self._listed[row] += 1
        self._found.pairs[split] = self._found.pairs.get(split, 0) + 1
        # The sort is stable: of equally similar pairs, the one found first stays first.
        self._found.closest = sorted([*self._found.closest, pair], key=lambda pair: -pair.similarity)[
            :MAX_EXAMPLES
        ]
        return pair


def _group_by_query(pairs: NDArray[np.int64]) -> Iterator[tuple[int, list[int]]]:
    """Yield each query with its indexed reviews, from pairs that are sorted by query."""
    for query, group in groupby(pairs.tolist(), key=itemgetter(0)):
        yield query, [row for _, row in group]

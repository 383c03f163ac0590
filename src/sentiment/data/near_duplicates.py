"""Search for near-duplicates of test reviews, such as re-posted or edited reviews, in the other splits.

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
"""Number of most similar pairs that an error message lists."""
MAX_PAIRS_PER_REVIEW = 5
"""Maximum near-duplicates listed per test review, after which the search for others ends."""
MAX_COMPARISONS = 200
"""Maximum candidates per test review that are compared exactly. If none is similar, it is undecided."""
CACHED_SHINGLE_SETS = 1_000

ReviewReader = Callable[[], Iterable[tuple[NDArray[np.int64], pa.RecordBatch]]]
"""Function that reads reviews from the start, as pairs of row positions and a batch in ORIGIN_SCHEMA."""


@dataclass(frozen=True)
class Pair:
    """A test review and its near-duplicate, each identified by source and row."""

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
        test_reviews: number of test reviews.
        similar: number of test reviews with a near-duplicate in another split.
        undecided: number of test reviews with MAX_COMPARISONS compared candidates, of which none is similar.
        pairs: number of listed pairs, by the split of the other review.
        closest: the most similar pairs in descending order.
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
        test: function that reads the test reviews.
        others: function that reads the reviews of the other splits.
        get_split: function that returns the split of a review in `others` by its position.
        similarity: minimum Jaccard similarity of the word trigrams of near-duplicates.
        report: path of the CSV report with REPORT_COLUMNS, one row per pair. The file is moved into place
            only if the block succeeds.
        folder: folder for a temporary file with the test reviews.
    """
    with atomic_write(report) as temporary:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(REPORT_COLUMNS)
            result = NearDuplicates()
            for pair in _find_pairs(test, others, get_split, similarity, folder / "test.arrow", result):
                writer.writerow([f"{pair.similarity:.6f}", *pair.test, pair.split, *pair.other])
        yield result


def _find_pairs(
    test: ReviewReader,
    others: ReviewReader,
    get_split: Callable[[int], str],
    similarity: float,
    path: Path,
    result: NearDuplicates,
) -> Iterator[Pair]:
    """Yield the near-duplicate pairs, and record their numbers in `result`."""
    with _open_test_reviews(test, path) as test_reviews:
        search = _Search(test_reviews, similarity, result)
        for positions, batch in others():
            yield from search.pairs(positions, batch, get_split)
            release_freed_memory()
        search.count_undecided()


@dataclass(frozen=True)
class _TestReviews:
    """Test reviews in a memory-mapped file."""

    reader: pa.RecordBatchFileReader
    starts: NDArray[np.int64]
    """Position of the first review of each batch, followed by the total number of reviews."""
    signatures: NDArray[np.uint32]

    def __getitem__(self, row: int) -> dict[str, str]:
        batch = int(np.searchsorted(self.starts, row, side="right")) - 1
        (found,) = self.reader.get_batch(batch).slice(row - int(self.starts[batch]), 1).to_pylist()
        return dict(found)


@contextmanager
def _open_test_reviews(test: ReviewReader, path: Path) -> Iterator[_TestReviews]:
    """Write the test reviews to a temporary file, compute their signatures, and open the file."""
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
    """Searches batches of other reviews for near-duplicates of the test reviews."""

    def __init__(self, test_reviews: _TestReviews, similarity: float, result: NearDuplicates) -> None:
        self._result = result
        result.test_reviews = len(test_reviews.signatures)
        self._test_reviews = test_reviews
        self._similarity = similarity
        self._index = SignatureIndex(test_reviews.signatures, similarity)
        self._compared = np.zeros(len(test_reviews.signatures), np.uint8)
        self._listed = np.zeros(len(test_reviews.signatures), np.uint8)
        self._shingles = lru_cache(CACHED_SHINGLE_SETS)(lambda row: build_shingles(test_reviews[row]["text"]))

    def pairs(
        self, positions: NDArray[np.int64], batch: pa.RecordBatch, get_split: Callable[[int], str]
    ) -> Iterator[Pair]:
        """Yield the pairs of a test review and a review of the batch, in the order of the batch."""
        queries = compute_signatures(batch["text"].cast(pa.binary()).to_pylist())
        for candidates in self._index.candidates(queries):
            exhausted: set[int] = set()
            for query, rows in _group_by_query(candidates):
                query_shingles = build_shingles(batch["text"][query].as_py())
                for row in rows:
                    if self._compared[row] >= MAX_COMPARISONS or self._listed[row] >= MAX_PAIRS_PER_REVIEW:
                        exhausted.add(row)
                        continue
                    self._compared[row] += 1
                    similarity = compute_jaccard(query_shingles, self._shingles(row))
                    if similarity >= self._similarity:
                        yield self._record_pair(
                            similarity, row, batch, query, get_split(int(positions[query]))
                        )
            self._index.retire(np.fromiter(exhausted, np.int64, len(exhausted)))

    def count_undecided(self) -> None:
        """Count the undecided test reviews."""
        self._result.undecided = int(np.sum((self._compared >= MAX_COMPARISONS) & (self._listed == 0)))

    def _record_pair(
        self, similarity: float, row: int, batch: pa.RecordBatch, query: int, split: str
    ) -> Pair:
        """Create a pair, and add it to the counts and to the closest pairs."""
        test = self._test_reviews[row]
        other = (batch["source"][query].as_py(), batch["row"][query].as_py())
        pair = Pair(similarity, (test["source"], test["row"]), split, other)
        self._result.similar += int(self._listed[row] == 0)
        self._listed[row] += 1
        self._result.pairs[split] = self._result.pairs.get(split, 0) + 1
        # The sort is stable: of equally similar pairs, the one found first stays first.
        self._result.closest = sorted([*self._result.closest, pair], key=lambda pair: -pair.similarity)[
            :MAX_EXAMPLES
        ]
        return pair


def _group_by_query(pairs: NDArray[np.int64]) -> Iterator[tuple[int, list[int]]]:
    """Yield each query with the indexed reviews of its pairs. The pairs must be sorted by query."""
    for query, group in groupby(pairs.tolist(), key=itemgetter(0)):
        yield query, [row for _, row in group]

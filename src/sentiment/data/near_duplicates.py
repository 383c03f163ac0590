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

from sentiment.data.minhash import SLOTS, SignatureIndex, jaccard, shingles_of, signatures_of
from sentiment.data.parquet import WITH_ORIGIN, release_freed_memory
from sentiment.files import replacing

COLUMNS = ("similarity", "test_source", "test_row", "split", "source", "row")
NAMED_PAIRS = 10
"""The closest pairs, which an error names."""
LISTED = 5
"""Near-duplicates of one test review that are listed; with so many, no more are looked for."""
COMPARED = 200
"""Candidates of one test review that are compared word by word; with none alike, it stays undecided."""
SETS_HELD = 1_000

Reviews = Callable[[], Iterable[tuple[NDArray[np.int64], pa.RecordBatch]]]
"""Reads reviews anew: positions of rows, and those rows with the columns of WITH_ORIGIN."""


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
    def share(self) -> float:
        """Share of the test reviews that have a near-duplicate elsewhere."""
        return self.similar / max(1, self.test_reviews)

    def figures(self) -> dict[str, Any]:
        """Return what the metric file says of it."""
        return {
            "test_reviews": self.similar,
            "share_of_test": round(self.share, 6),
            "undecided": self.undecided,
            "pairs": dict(sorted(self.pairs.items())),
            "largest_similarity": round(self.closest[0].similarity, 6) if self.closest else 0.0,
        }


@contextmanager
def list_nothing(report: Path) -> Iterator[None]:
    """Write a report without pairs, since none were looked for; it appears when this ends well."""
    with replacing(report) as temporary:
        temporary.write_text(",".join(COLUMNS) + "\n", encoding="utf-8")
        yield


@contextmanager
def find_near_duplicates(
    test: Reviews,
    others: Reviews,
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
        report: CSV with COLUMNS, a row for each pair; it appears when this ends well.
        folder: Where a file with the test reviews may lie meanwhile.
    """
    with replacing(report) as temporary:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            found = NearDuplicates()
            for pair in _pairs(test, others, split_at, similarity, folder / "test.arrow", found):
                writer.writerow([f"{pair.similarity:.6f}", *pair.test, pair.split, *pair.other])
        yield found


def _pairs(
    test: Reviews,
    others: Reviews,
    split_at: Callable[[int], str],
    similarity: float,
    path: Path,
    found: NearDuplicates,
) -> Iterator[Pair]:
    """Yield the pairs that are alike, and count them in `found`."""
    with _test_reviews(test, path) as tested:
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
def _test_reviews(test: Reviews, path: Path) -> Iterator[_TestReviews]:
    signatures, sizes = [np.empty((0, SLOTS), np.uint32)], [0]
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, WITH_ORIGIN) as writer:
        for _, batch in test():
            writer.write_batch(batch)
            signatures.append(signatures_of(batch["text"].cast(pa.binary()).to_pylist()))
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
        self._shingles = lru_cache(SETS_HELD)(lambda row: shingles_of(tested[row]["text"]))

    def pairs(
        self, positions: NDArray[np.int64], batch: pa.RecordBatch, split_at: Callable[[int], str]
    ) -> Iterator[Pair]:
        """Yield the pairs of a test review and one of the batch, in the order of the batch."""
        queries = signatures_of(batch["text"].cast(pa.binary()).to_pylist())
        for candidates in self._index.candidates(queries):
            done: set[int] = set()
            for query, rows in _by_query(candidates):
                own = shingles_of(batch["text"][query].as_py())
                for row in rows:
                    if self._compared[row] >= COMPARED or self._listed[row] >= LISTED:
                        done.add(row)
                        continue
                    self._compared[row] += 1
                    similarity = jaccard(own, self._shingles(row))
                    if similarity >= self._similarity:
                        yield self._pair(similarity, row, batch, query, split_at(int(positions[query])))
            self._index.retire(np.fromiter(done, np.int64, len(done)))

    def finish(self) -> None:
        """Count what was not decided."""
        self._found.undecided = int(np.sum((self._compared >= COMPARED) & (self._listed == 0)))

    def _pair(self, similarity: float, row: int, batch: pa.RecordBatch, query: int, split: str) -> Pair:
        test = self._tested[row]
        other = (batch["source"][query].as_py(), batch["row"][query].as_py())
        pair = Pair(similarity, (test["source"], test["row"]), split, other)
        self._found.similar += int(self._listed[row] == 0)
        self._listed[row] += 1
        self._found.pairs[split] = self._found.pairs.get(split, 0) + 1
        # The sort is stable: of pairs that are as close the one found first stays first.
        self._found.closest = sorted([*self._found.closest, pair], key=lambda pair: -pair.similarity)[
            :NAMED_PAIRS
        ]
        return pair


def _by_query(pairs: NDArray[np.int64]) -> Iterator[tuple[int, list[int]]]:
    """Yield each query with its indexed reviews, from pairs in the order of the queries."""
    for query, group in groupby(pairs.tolist(), key=itemgetter(0)):
        yield query, [row for _, row in group]

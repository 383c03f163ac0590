"""Batches of real reviews and of other texts, for a project whose champion was trained on other reviews."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
from numpy.typing import NDArray

from sentiment.data.deduplication import compute_fingerprints
from sentiment.data.imdb import find_package_file, load_package_reviews
from sentiment.text import normalize_text

OTHER_SOURCE = "rotten_tomatoes"
"""Source in the file of the package that the project does not use: sentences from film reviews."""


@dataclass(frozen=True)
class Reviews:
    """Labelled texts.

    Attributes:
        texts: texts, shape (reviews,).
        labels: 0 or 1, shape (reviews,).
    """

    texts: NDArray[np.object_]
    labels: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.texts)

    def draw(self, size: int, rng: np.random.Generator) -> "Reviews":
        """Return a random sample without replacement."""
        rows = rng.permutation(len(self))[:size]
        return Reviews(self.texts[rows], self.labels[rows])

    def map_texts(self, change: Callable[[str], str]) -> "Reviews":
        """Return the reviews with changed texts."""
        return Reviews(np.array([change(text) for text in self.texts], dtype=object), self.labels)

    def join(self, other: "Reviews") -> "Reviews":
        """Return these reviews followed by others."""
        return Reviews(np.concatenate([self.texts, other.texts]), np.concatenate([self.labels, other.labels]))

    def to_table(self) -> pa.Table:
        """Return the columns text and label."""
        return pa.table({"text": pa.array(self.texts, pa.string()), "label": self.labels})


def load_unused_reviews(used: NDArray[np.uint64]) -> Reviews:
    """Return the distinct reviews of the package whose fingerprints are not among those used."""
    table = load_package_reviews()
    texts = [normalize_text(text) for text in table["text"].to_pylist()]
    fingerprints = compute_fingerprints(texts)
    _, first = np.unique(fingerprints, return_index=True)
    rows = np.sort(first[~np.isin(fingerprints[first], used)])
    return Reviews(np.array(texts, dtype=object)[rows], table["label"].to_numpy()[rows].astype(np.int8))


def load_sentences() -> Reviews:
    """Return the labelled sentences of another domain that the package has beside the reviews."""
    table = pa_csv.read_csv(
        find_package_file(), parse_options=pa_csv.ParseOptions(newlines_in_values=True)
    ).to_pandas()
    rows = table[table["source"] == OTHER_SOURCE].drop_duplicates("text")
    return Reviews(rows["text"].to_numpy(dtype=object), rows["label"].to_numpy(np.int8))


def load_docstrings(size: int, packages: Sequence[str] = ("numpy", "scipy", "pandas")) -> Reviews:
    """Return docstrings of installed packages: real texts that are no reviews, with random labels."""
    texts: list[str] = []
    for name in packages:
        package = importlib.import_module(name)
        names = [
            package.__name__,
            *(each.name for each in pkgutil.iter_modules(package.__path__, f"{name}.")),
        ]
        for module_name in names:
            if "._" in module_name or "test" in module_name:
                continue
            try:
                module = importlib.import_module(module_name)
            except ImportError:
                continue
            documented = (inspect.getdoc(value) for _, value in inspect.getmembers(module, callable))
            texts += [text for text in documented if text and len(text.split()) > 20]
    distinct = sorted(set(texts))[:size]
    labels = np.random.default_rng(0).integers(0, 2, len(distinct)).astype(np.int8)
    return Reviews(np.array(distinct, dtype=object), labels)

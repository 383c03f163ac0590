"""Generated reviews of the benchmarks resemble real ones."""

import numpy as np
import pyarrow as pa

from bench.resampling import resampled_reviews
from sentiment.data.imdb import load_package_reviews
from sentiment.text import normalize_text


def test_generated_reviews_are_distinct_and_as_long_as_real_ones() -> None:
    generated = pa.Table.from_batches(resampled_reviews(12_000))
    texts = generated["text"].to_pylist()
    assert len(texts) == len(set(texts)) == 12_000
    assert sorted(generated["label"].unique().to_pylist()) == [0, 1]
    real = [normalize_text(text) for text in load_package_reviews()["text"].to_pylist()]
    for percentile in (50, 95):
        lengths = [
            np.percentile([len(text.split()) for text in those], percentile) for those in (texts, real)
        ]
        assert 0.8 < lengths[0] / lengths[1] < 1.25


def test_equal_arguments_generate_equal_reviews() -> None:
    first, again, other = (pa.Table.from_batches(resampled_reviews(50, seed)) for seed in (1, 1, 2))
    assert first.equals(again)
    assert not first.equals(other)

"""Streaming tokenization: results do not depend on the batches, and failures write nothing."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.trainers import WordLevelTrainer

from sentiment.data import parquet as storage
from sentiment.data.parquet import read_reviews, stream_reviews, write_reviews
from sentiment.errors import UserError
from sentiment.params.data import TokenizeParams
from sentiment.shards.processes import Processes
from sentiment.shards.shard_map import InProcess, ShardMap
from sentiment.tokens.encoding import encode, encode_to_folder, iter_texts
from sentiment.tokens.token_store import NO_LABEL, TokenizedReviews, open_token_writer
from sentiment.tokens.vocabulary import PADDING, UNKNOWN, TextEncoder, train_tokenizer
from tests.project import ROOT

WORD = TokenizeParams(kind="word", vocabulary_size=500, min_frequency=2, lowercase=True, oov_rate=1.0)

TRAIN = """
import sys
from pathlib import Path
from sentiment.params.data import TokenizeParams
from sentiment.data.parquet import stream_reviews
from sentiment.tokens.encoding import iter_texts
from sentiment.tokens.vocabulary import TextEncoder, train_tokenizer

params = TokenizeParams(
    kind=sys.argv[1], vocabulary_size=2000, min_frequency=1, lowercase=True, oov_rate=1.0
)
print(train_tokenizer(iter_texts(stream_reviews(Path(sys.argv[2])), "train"), params).to_str())
"""


@pytest.fixture
def parquet(reviews: pa.Table, tmp_path: Path) -> Path:
    """Real reviews in a file; one of them is empty."""
    emptied = ["" if row == 7 else text for row, text in enumerate(reviews["text"].to_pylist())]
    path = tmp_path / "in" / "train.parquet"
    write_reviews(path, reviews.set_column(0, "text", pa.array(emptied)))
    return path


@pytest.fixture
def tokenizer(reviews: pa.Table) -> Tokenizer:
    return train_tokenizer(reviews["text"].to_pylist(), WORD)


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("rows", [1, 7, 64, 1000])
def test_output_does_not_depend_on_the_batch_size(
    rows: int, parquet: Path, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = encode(tokenizer, read_reviews(parquet))
    whole.save(tmp_path / "whole")
    monkeypatch.setattr(storage, "BATCH_ROWS", rows)
    metrics = encode_to_folder(tmp_path / "streamed", tokenizer, stream_reviews(parquet), "tokenize")
    assert _files(tmp_path / "streamed") == _files(tmp_path / "whole")
    assert metrics == whole.describe()
    assert len(TokenizedReviews.open(tmp_path / "streamed")[7]) == 0


@pytest.mark.parametrize(
    "shards",
    [InProcess(200), InProcess(50), InProcess(13), pytest.param(Processes(2, 13), marks=pytest.mark.slow)],
)
def test_output_does_not_depend_on_the_shards(
    shards: ShardMap, parquet: Path, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "BATCH_ROWS", 5)
    stream = stream_reviews(parquet)
    encode_to_folder(tmp_path / "streamed", tokenizer, stream, "tokenize")
    metrics = encode_to_folder(tmp_path / "sharded", tokenizer, stream, "tokenize", shards)
    assert _files(tmp_path / "sharded") == _files(tmp_path / "streamed")
    assert metrics == TokenizedReviews.open(tmp_path / "sharded").describe()
    texts = iter_texts(stream, "train")
    assert (
        train_tokenizer(texts, WORD, shards).to_str()
        == train_tokenizer(iter_texts(stream, ""), WORD).to_str()
    )


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize(("size", "min_frequency"), [(500, 2), (100_000, 1), (100, 1), (500, 10_000)])
def test_vocabulary_of_words_is_that_of_the_library(
    size: int, min_frequency: int, lowercase: bool, reviews: pa.Table
) -> None:
    texts = [*reviews["text"].to_pylist(), "", "naïve Ünïcode", "<pad> <unk>", "a\x85b \u2028 İstanbul ﬁne"]
    params = TokenizeParams(
        kind="word", vocabulary_size=size, min_frequency=min_frequency, lowercase=lowercase, oov_rate=1.0
    )
    ours = train_tokenizer(texts, params)
    library = Tokenizer(WordLevel(unk_token=UNKNOWN))
    library.normalizer, library.pre_tokenizer = ours.normalizer, ours.pre_tokenizer
    trainer = WordLevelTrainer(
        vocab_size=size, min_frequency=min_frequency, special_tokens=[PADDING, UNKNOWN], show_progress=False
    )
    library.train_from_iterator(texts, trainer)
    assert ours.to_str() == library.to_str()


def test_files_equal_those_of_numpy(parquet: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    encode_to_folder(tmp_path / "streamed", tokenizer, stream_reviews(parquet), "tokenize")
    table = read_reviews(parquet)
    lists = TextEncoder(tokenizer)(table["text"].to_pylist())
    expected = TokenizedReviews.from_lists(lists, table["label"].to_numpy())
    for name in ("ids", "offsets", "labels"):
        np.save(tmp_path / "numpy.npy", getattr(expected, name))
        assert (tmp_path / "streamed" / f"{name}.npy").read_bytes() == (tmp_path / "numpy.npy").read_bytes()
    assert TokenizedReviews.open(tmp_path / "streamed").digest == expected.digest


def test_tokenizer_does_not_depend_on_the_batches(reviews: pa.Table, parquet: Path) -> None:
    write_reviews(parquet, reviews)
    streamed = train_tokenizer(iter_texts(stream_reviews(parquet), "train"), WORD)
    assert streamed.to_str() == train_tokenizer(reviews["text"].to_pylist(), WORD).to_str()


@pytest.mark.parametrize("number", [0, 30])
def test_unlabelled_reviews_are_tokenized(
    number: int, reviews: pa.Table, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    texts = reviews["text"].slice(0, number)
    path = tmp_path / "unlabelled.parquet"
    write_reviews(path, pa.table({"text": texts, "label": pa.nulls(number, pa.int8())}))
    stream = stream_reviews(path, labelled=False)
    metrics = encode_to_folder(tmp_path / "streamed", tokenizer, stream, "tokenize")
    opened = TokenizedReviews.open(tmp_path / "streamed", labelled=False)
    assert opened.labels.tolist() == [NO_LABEL] * number
    assert opened.lengths.tolist() == [len(ids) for ids in TextEncoder(tokenizer)(texts.to_pylist())]
    whole = encode(tokenizer, read_reviews(path, labelled=False))
    assert opened.digest == whole.digest
    assert metrics == whole.describe()
    if not number:
        assert (metrics["tokens"], metrics["oov_rate"]) == (0, 0)
        assert set(metrics["length"].values()) == {0}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_vocabulary_does_not_depend_on_threads(kind: str, parquet: Path) -> None:
    threads = (("true", "1"), ("true", "2"), ("true", "4"), ("false", "2"))
    vocabularies = {
        subprocess.run(
            [sys.executable, "-c", TRAIN, kind, str(parquet)],
            cwd=ROOT,
            env={**os.environ, "TOKENIZERS_PARALLELISM": parallel, "RAYON_NUM_THREADS": number},
            capture_output=True,
            check=True,
        ).stdout
        for parallel, number in threads
    }
    assert len(vocabularies) == 1


def _flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle] ^= 1
    path.write_bytes(content)


def test_flipped_bit_in_a_page_raises_and_nothing_is_written(
    parquet: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    _flip_a_bit(parquet)
    stream = stream_reviews(parquet)  # footer and labels are intact
    with pytest.raises(UserError, match=r"train\.parquet: truncated or corrupt Parquet file"):
        encode_to_folder(tmp_path / "out" / "train", tokenizer, stream, "tokenize")
    assert list((tmp_path / "out").iterdir()) == []
    with pytest.raises(UserError, match=r"train\.parquet: truncated or corrupt Parquet file"):
        train_tokenizer(iter_texts(stream, "train"), WORD)
    with pytest.raises(UserError, match=r"train\.parquet: truncated or corrupt Parquet file"):
        read_reviews(parquet)


def test_failure_while_streaming_leaves_the_old_split(
    parquet: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    folder = tmp_path / "out" / "train"
    encode_to_folder(folder, tokenizer, stream_reviews(parquet), "tokenize")
    before = _files(folder)

    def fail_after_one_batch() -> None:
        with open_token_writer(folder) as writer:
            writer.append(np.arange(3, dtype=np.int32), np.array([1, 2]), np.array([0, 1], dtype=np.int8))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_after_one_batch()
    assert _files(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == ["train"]


def test_missing_text_raises(parquet: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    write_reviews(parquet, pa.table({"text": ["fine", None], "label": pa.array([1, 0], pa.int8())}))
    with pytest.raises(UserError, match="expected a text in every row"):
        encode_to_folder(tmp_path / "train", tokenizer, stream_reviews(parquet), "tokenize")


def test_digest_follows_the_documented_formula(parquet: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """The formula is part of the file format: with another one, every split would count as changed."""
    encode_to_folder(tmp_path / "train", tokenizer, stream_reviews(parquet), "tokenize")
    opened = TokenizedReviews.open(tmp_path / "train")
    arrays = (opened.ids, opened.offsets, opened.labels)
    digests = [hashlib.md5(array.dtype.str.encode() + array.tobytes()).hexdigest() for array in arrays]  # noqa: S324
    assert opened.digest == hashlib.md5(" ".join(digests).encode()).hexdigest()  # noqa: S324

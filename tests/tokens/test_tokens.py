from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers

from sentiment.errors import UserError
from sentiment.params.data import TokenizeParams
from sentiment.tokens.batches import Batch, Truncation, iter_shuffled_batches, iter_sorted_batches, prefetch
from sentiment.tokens.encoding import encode
from sentiment.tokens.token_store import NO_LABEL, TokenizedReviews
from sentiment.tokens.vocabulary import PADDING_ID, UNKNOWN_ID, TextEncoder, load_tokenizer, train_tokenizer

WORD = TokenizeParams(kind="word", vocabulary_size=500, min_frequency=2, lowercase=True, oov_rate=1.0)
BPE = TokenizeParams(kind="bpe", vocabulary_size=500, min_frequency=2, lowercase=True, oov_rate=1.0)


@pytest.fixture(scope="module")
def tokenized(reviews: pa.Table) -> TokenizedReviews:
    return encode(train_tokenizer(reviews["text"].to_pylist(), WORD), reviews)


@pytest.mark.parametrize("params", [WORD, BPE], ids=["word", "bpe"])
def test_equal_texts_give_an_equal_tokenizer(params: TokenizeParams, reviews: pa.Table) -> None:
    texts = reviews["text"].to_pylist()
    first, second = train_tokenizer(texts, params), train_tokenizer(texts, params)
    assert first.to_str() == second.to_str()
    assert first.get_vocab_size() == 500


def test_punctuation_is_split_and_case_is_folded(reviews: pa.Table) -> None:
    tokenizer = train_tokenizer(reviews["text"].to_pylist(), WORD)
    assert tokenizer.encode("A GOOD film!").tokens == ["a", "good", "film", "!"]


def test_unseen_words_are_out_of_vocabulary_except_for_bpe(reviews: pa.Table) -> None:
    word, bpe = (train_tokenizer(reviews["text"].to_pylist(), params) for params in (WORD, BPE))
    assert TextEncoder(word)(["qwzzy"]) == [[UNKNOWN_ID]]
    assert UNKNOWN_ID not in TextEncoder(bpe)(["qwzzy"])[0]


def test_saved_tokenizer_is_loaded_unchanged(reviews: pa.Table, tmp_path: Path) -> None:
    tokenizer = train_tokenizer(reviews["text"].to_pylist(), WORD)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert load_tokenizer(tmp_path / "tokenizer.json").to_str() == tokenizer.to_str()


def test_store_is_memory_mapped(tokenized: TokenizedReviews, tmp_path: Path) -> None:
    tokenized.save(tmp_path / "train")
    opened = TokenizedReviews.open(tmp_path / "train")
    assert isinstance(opened.ids, np.memmap)
    assert opened.digest == tokenized.digest
    for review in (0, 7, len(opened) - 1):
        np.testing.assert_array_equal(opened[review], tokenized[review])


def test_digest_depends_on_the_content(tokenized: TokenizedReviews) -> None:
    lists = [list(tokenized[review]) for review in range(len(tokenized))]
    assert TokenizedReviews.from_lists(lists, tokenized.labels).digest == tokenized.digest
    assert TokenizedReviews.from_lists(lists, 1 - tokenized.labels).digest != tokenized.digest
    lists[3] = [*lists[3], UNKNOWN_ID]
    assert TokenizedReviews.from_lists(lists, tokenized.labels).digest != tokenized.digest


def test_concatenated_reviews_are_in_order_with_soft_labels(tokenized: TokenizedReviews) -> None:
    others = TokenizedReviews.from_lists([[5, 6], [], [7]], [NO_LABEL] * 3)
    combined = tokenized.concatenate(others, np.array([0.25, 0.5, 1.0]))
    assert len(combined) == len(tokenized) + 3
    for review in (0, 7, len(tokenized) - 1):
        np.testing.assert_array_equal(combined[review], tokenized[review])
    assert [combined[len(tokenized) + review].tolist() for review in range(3)] == [[5, 6], [], [7]]
    assert combined.labels.dtype == np.float32
    np.testing.assert_array_equal(combined.labels, [*tokenized.labels, 0.25, 0.5, 1.0])


def test_digest_of_concatenated_reviews_depends_on_both_and_on_the_labels(
    tokenized: TokenizedReviews,
) -> None:
    one, two = (TokenizedReviews.from_lists([[5, word]], [NO_LABEL]) for word in (6, 7))
    half, whole = np.array([0.5]), np.array([1.0])
    assert tokenized.concatenate(one, half).digest == tokenized.concatenate(one, half).digest
    others = {
        tokenized.concatenate(two, half).digest,
        tokenized.concatenate(one, whole).digest,
        tokenized.digest,
    }
    assert len({tokenized.concatenate(one, half).digest, one.concatenate(one, half).digest} | others) == 5


def test_saving_soft_labels_raises(tokenized: TokenizedReviews, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="labels are float32, not int8"):
        tokenized.concatenate(tokenized, np.full(len(tokenized), 0.5)).save(tmp_path / "combined")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("lists", [[[5, 6], []], []], ids=["some", "none"])
def test_unlabelled_reviews_open_only_if_labels_are_not_required(
    lists: list[list[int]], tmp_path: Path
) -> None:
    unlabelled = TokenizedReviews.from_lists(lists, [NO_LABEL] * len(lists))
    unlabelled.save(tmp_path / "unlabelled")
    opened = TokenizedReviews.open(tmp_path / "unlabelled", labelled=False)
    assert [review.tolist() for review in map(opened.__getitem__, range(len(opened)))] == lists
    assert opened.digest == unlabelled.digest
    with pytest.raises(UserError):
        TokenizedReviews.open(tmp_path / "unlabelled")


@pytest.mark.parametrize(
    ("retained", "expected"), [("head", [0, 1, 2]), ("tail", [4, 5, 6]), ("both", [0, 1, 6])]
)
def test_truncation_retains_the_configured_end(retained: str, expected: list[int]) -> None:
    truncation = Truncation(3, retained)  # type: ignore[arg-type]
    assert truncation(np.arange(7, dtype=np.int32)).tolist() == expected
    assert truncation(np.arange(2, dtype=np.int32)).tolist() == [0, 1]


def test_each_epoch_has_every_review_once_in_its_own_order(tokenized: TokenizedReviews) -> None:
    def rows(seed: int) -> list[int]:
        batches = iter_shuffled_batches(tokenized, Truncation(100, "both"), 16, np.random.default_rng(seed))
        return [int(row) for batch in batches for row in batch.rows]

    assert sorted(rows(1)) == list(range(len(tokenized)))
    assert rows(1) == rows(1)
    assert rows(1) != rows(2)


def test_batches_contain_their_reviews_padded_at_the_end(tokenized: TokenizedReviews) -> None:
    truncation = Truncation(50, "both")
    for batch in iter_shuffled_batches(tokenized, truncation, 16, np.random.default_rng(0)):
        for row, ids, length, label in zip(batch.rows, batch.ids, batch.lengths, batch.labels, strict=True):
            np.testing.assert_array_equal(ids[:length], truncation(tokenized[row]))
            assert (ids[length:] == PADDING_ID).all()
            assert label == tokenized.labels[row]


def test_sorted_batches_have_little_padding(tokenized: TokenizedReviews) -> None:
    batches = list(iter_sorted_batches(tokenized, Truncation(400, "both"), 16))
    padding = 1 - sum(batch.tokens for batch in batches) / sum(batch.ids.size for batch in batches)
    assert padding < 0.1


def test_empty_review_is_one_padding_token() -> None:
    reviews = TokenizedReviews.from_lists([[], [5]], [0, 1])
    (batch,) = iter_sorted_batches(reviews, Truncation(10, "both"), 2)
    assert batch.ids.tolist() == [[PADDING_ID], [5]]


def test_take_selects_rows_in_order(tokenized: TokenizedReviews) -> None:
    rows = np.array([7, 2, 150])
    taken = tokenized.take(rows)
    assert [taken[place].tolist() for place in range(3)] == [tokenized[row].tolist() for row in rows]
    assert taken.labels.tolist() == tokenized.labels[rows].tolist()
    assert taken.digest != tokenized.digest
    assert tokenized.take(np.arange(len(tokenized))).digest == tokenized.digest
    assert len(tokenized.take(np.arange(0))) == 0


def test_taking_reviews_with_soft_labels_raises(tokenized: TokenizedReviews) -> None:
    combined = tokenized.concatenate(tokenized, np.full(len(tokenized), 0.5))
    with pytest.raises(ValueError, match="labels are float32, not int8"):
        combined.take(np.arange(2))


def test_prefetched_batches_are_equal_and_in_order(tokenized: TokenizedReviews) -> None:
    truncation = Truncation(50, "both")
    plain, ahead = (
        list(iter_shuffled_batches(tokenized, truncation, 16, np.random.default_rng(3))) for _ in range(2)
    )
    fetched = list(prefetch(iter(ahead)))
    assert [id(batch) for batch in fetched] == [id(batch) for batch in ahead]
    for one, other in zip(plain, fetched, strict=True):
        np.testing.assert_array_equal(one.ids, other.ids)


def test_error_in_a_prefetched_batch_reaches_the_caller(tokenized: TokenizedReviews) -> None:
    def broken() -> Iterator[Batch]:
        yield from iter_sorted_batches(tokenized, Truncation(50, "both"), 150)
        raise ValueError("no such page")

    batches = prefetch(broken())
    assert len(next(batches).rows) == 150
    next(batches)
    with pytest.raises(ValueError, match="no such page"):
        next(batches)


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_special_tokens_in_a_review_are_text(kind: str, tmp_path: Path) -> None:
    params = TokenizeParams.model_validate(
        {"kind": kind, "vocabulary_size": 100, "min_frequency": 1, "lowercase": True, "oov_rate": 1.0}
    )
    learned = train_tokenizer(["a < pad > film , unk"], params)
    learned.save(str(tmp_path / "tokenizer.json"))
    for tokenizer in (learned, load_tokenizer(tmp_path / "tokenizer.json")):
        assert PADDING_ID not in TextEncoder(tokenizer)(["a <pad> film <unk>"])[0]


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_encoder_gives_the_ids_of_the_library(kind: str, *, lowercase: bool, reviews: pa.Table) -> None:
    params = WORD.model_copy(update={"kind": kind, "lowercase": lowercase})
    tokenizer = train_tokenizer(reviews["text"].to_pylist(), params)
    rng = np.random.default_rng(0)
    ascii_texts = [bytes(rng.integers(0, 128, 40).tolist()).decode("ascii") for _ in range(2_000)]
    texts = [
        *ascii_texts,
        *reviews["text"].to_pylist(),
        "",
        " ",
        "Ein schöner Film, très bon!",
        "\u2003İ\u0301",
    ]
    ids = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    assert TextEncoder(tokenizer)(texts) == ids
    assert any(text.isascii() for text in reviews["text"].to_pylist())


def _set_normalizer(*steps: normalizers.Normalizer) -> Callable[[Tokenizer], None]:
    def change(tokenizer: Tokenizer) -> None:
        tokenizer.normalizer = normalizers.Sequence(list(steps)) if steps else None

    return change


def _set_pre_tokenizer(pre_tokenizer: pre_tokenizers.PreTokenizer) -> Callable[[Tokenizer], None]:
    def change(tokenizer: Tokenizer) -> None:
        tokenizer.pre_tokenizer = pre_tokenizer

    return change


@pytest.mark.parametrize(
    "change",
    [
        _set_normalizer(),
        _set_normalizer(normalizers.Lowercase()),
        _set_normalizer(normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()),
        _set_normalizer(normalizers.NFC(), normalizers.Replace("film", "movie"), normalizers.Lowercase()),
        _set_pre_tokenizer(pre_tokenizers.WhitespaceSplit()),
        _set_pre_tokenizer(pre_tokenizers.Whitespace()),
        _set_pre_tokenizer(
            pre_tokenizers.Sequence([pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Digits()])
        ),
        lambda tokenizer: tokenizer.add_tokens([AddedToken("good film", normalized=True)]),
        lambda tokenizer: tokenizer.add_tokens([AddedToken("ood", normalized=True)]),
        lambda tokenizer: tokenizer.enable_truncation(3),
        lambda tokenizer: tokenizer.enable_padding(length=20),
    ],
    ids=[
        "no normalizer",
        "no NFC",
        "StripAccents",
        "Replace",
        "split at white space only",
        "words and runs of punctuation",
        "Digits",
        "added phrase",
        "added part of a word",
        "truncation",
        "padding",
    ],
)
def test_tokenizer_with_other_settings_gives_the_ids_of_the_library(
    change: Callable[[Tokenizer], object], tmp_path: Path
) -> None:
    corpus = ["a good film , a good movie ! ... it 's 10 / 10 . très beau , tres bon", "good!... A Film"]
    words = train_tokenizer(corpus * 2, WORD.model_copy(update={"lowercase": False}))
    change(words)
    words.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path / "tokenizer.json")
    texts = ["A good film, it's 10/10!...", "GOOD movie 10a", "Très beau, tre\u0300s bon", "<unk> film", ""]
    ids = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    assert TextEncoder(tokenizer)(texts) == ids


def test_tokenizer_with_another_unknown_token_gives_the_ids_of_the_library() -> None:
    tokenizer = train_tokenizer(["a good film"] * 2, WORD)
    tokenizer.model.unk_token = "film"
    ids = tokenizer.encode("a bad film", add_special_tokens=False).ids
    assert TextEncoder(tokenizer)(["a bad film"]) == [ids]


def test_tokenizer_of_the_pipeline_encodes_ascii_text_without_the_library(
    reviews: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_tokenizer(reviews["text"].to_pylist(), WORD).save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path / "tokenizer.json")
    encoder = TextEncoder(tokenizer)
    ids = tokenizer.encode("A good film!", add_special_tokens=False).ids
    monkeypatch.setattr(encoder, "_encode_with_library", lambda texts: [[-1] for _ in texts])
    assert encoder(["A good film!", "très"]) == [ids, [-1]]

"""Texts with equal tokens have equal keys, and other reviews have other keys."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable
from itertools import combinations

import pyarrow as pa
import pytest
from tokenizers import normalizers

from sentiment.data.deduplication import compute_duplicate_key, encode_latin1, fold_text
from sentiment.data.imdb import load_package_reviews
from sentiment.params.data import TokenizeParams
from sentiment.text import normalize_text
from sentiment.tokens.vocabulary import UNKNOWN_ID, train_tokenizer

EVERY_CHARACTER = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]

CHANGES: dict[str, Callable[[str], str]] = {
    "capitals": str.upper,
    "lower case": str.lower,
    "capital words": str.title,
    "decomposed": lambda text: unicodedata.normalize("NFD", text),
    "composed": lambda text: unicodedata.normalize("NFC", text),
    "spaces around punctuation": lambda text: re.sub(r"([^\w\s])", r" \1 ", text),
    "none around it": lambda text: re.sub(r"\s*([^\w\s])\s*", r"\1", text),
    "tabs": lambda text: text.replace(" ", "\t\t"),
    "other spaces": lambda text: text.replace(" ", "\u00a0\u2003\u3000").replace(".", ".\u2028\x85"),
}
"""What some tokenizer does not see."""

HIDDEN: dict[str, Callable[[str], str]] = {
    "line breaks": lambda text: text.replace(" ", "<BR  /> <br>"),
    "byte-order mark": lambda text: "\ufeff" + text,
    "soft hyphens": lambda text: text.replace("e", "e\u00ad"),
    "zero-width joiners": lambda text: text.replace("a", "\u200da"),
    "variation selectors": lambda text: text.replace("o", "o\ufe0f"),
    "directions": lambda text: f"\u202a{text}\u202c",
    "full width": lambda text: "".join(
        chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char for char in text
    ),
    "ligatures": lambda text: text.replace("fi", "\ufb01"),
    "controls": lambda text: text.replace("t", "t\x01\x9f"),
}
"""What a tokenizer sees and a reader does not."""


def tokenizer_params(kind: str, lowercase: bool) -> TokenizeParams:
    content = {"kind": kind, "vocabulary_size": 50_000, "min_frequency": 1, "lowercase": lowercase}
    return TokenizeParams.model_validate({**content, "oov_rate": 1.0})


@pytest.fixture(scope="module")
def texts(reviews: pa.Table) -> list[str]:
    """Real reviews, some of them with accents, sharp s, sigmas, dotted and dotless i's and emoji."""
    real = reviews["text"].to_pylist()[::2]
    other_scripts = (
        " Straße und Café! ΟΔΥΣΣΕΥΣ, Οδυσσεύς. İstanbul'da \u0131l\u0131k bir gün 👍🏽 日本の映画。"
    )
    return [text + other_scripts * (row % 5 == 0) for row, text in enumerate(real)]


@pytest.mark.parametrize("kind", ["word", "bpe"])
@pytest.mark.parametrize("lowercase", [True, False])
def test_equal_tokens_have_equal_keys(kind: str, lowercase: bool, texts: list[str]) -> None:
    changed = [*texts, *(change(text) for text in texts for change in CHANGES.values())]
    tokenizer = train_tokenizer(changed, tokenizer_params(kind, lowercase))
    by_tokens: dict[tuple[int, ...], set[str]] = defaultdict(set)
    for text in changed:
        ids = tuple(tokenizer.encode(text, add_special_tokens=False).ids)
        if UNKNOWN_ID not in ids:
            by_tokens[ids].add(text)
    alike = [group for group in by_tokens.values() if len(group) > 1]
    assert len(alike) >= len(texts) - 5  # there is something to compare
    for group in alike:
        assert len({compute_duplicate_key(text) for text in group}) == 1


@pytest.mark.parametrize("change", [*CHANGES, *HIDDEN])
def test_changed_copy_has_the_same_key(change: str, texts: list[str]) -> None:
    for text in texts:
        changed = (CHANGES | HIDDEN)[change](text)
        assert (
            compute_duplicate_key(changed)
            == compute_duplicate_key(text)
            == compute_duplicate_key(normalize_text(changed))
        )


def test_every_character_in_another_case_or_form_has_the_same_key() -> None:
    """Of all that Unicode has: what Python, or the tokenizers' newer tables, takes for the same character."""
    lower = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    differing = []
    for char in EVERY_CHARACTER:
        forms = {char.upper(), char.lower(), char.casefold(), char.title(), lower.normalize_str(char)}
        forms |= {unicodedata.normalize(form, char) for form in ("NFC", "NFD", "NFKC", "NFKD")}
        if forms != {char}:
            key = compute_duplicate_key(f"a{char}b")
            differing += [(char, form) for form in forms if compute_duplicate_key(f"a{form}b") != key]
            differing += [(char, key)] if compute_duplicate_key(key) != key else []
    assert differing == []


def test_invisible_characters_are_not_in_the_key() -> None:
    kinds = {char: unicodedata.category(char) for char in EVERY_CHARACTER}
    unseen = [char for char, kind in kinds.items() if kind in ("Cf", "Cc", "Zs", "Zl", "Zp")]
    assert len(unseen) > 200
    assert [char for char in unseen if compute_duplicate_key(f"a{char}b") != "ab"] == []


def test_latin1_table_gives_the_same_key() -> None:
    for char in map(chr, range(256)):
        text = f"Wörd{char} 1{char}ß"[: 8 if encode_latin1(char) is None else 7]
        shown = unicodedata.normalize("NFKC", "".join(fold_text(text).split()))
        assert compute_duplicate_key(text) == shown
    assert encode_latin1("naïve café") is not None
    assert encode_latin1("10 µm of ¾ Straße") is None


DIFFERENT = [
    "A good film.",
    "A good film!",
    "A good film",
    "A goood film.",
    "A good film. 1/10",
    "A good film 👍",
]


@pytest.mark.parametrize(("one", "other"), list(combinations(DIFFERENT, 2)))
def test_other_words_punctuation_digits_and_symbols_have_another_key(one: str, other: str) -> None:
    assert compute_duplicate_key(one) != compute_duplicate_key(other)


def test_html_entities_are_not_decoded() -> None:
    assert compute_duplicate_key("Good&nbsp;film") != compute_duplicate_key("Good film")


def test_only_one_pair_of_real_reviews_has_equal_keys() -> None:
    """Of 25,000 reviews, 98 repeat another one word for word, and one lacks a space behind a comma."""
    texts = {normalize_text(text) for text in load_package_reviews()["text"].to_pylist()}
    by_key = defaultdict(list)
    for text in texts:
        by_key[compute_duplicate_key(text)].append(text)
    merged = [group for group in by_key.values() if len(group) > 1]
    assert len(texts) == 24_902
    assert len(merged) == 1
    assert len({text.replace(" ", "") for text in merged[0]}) == 1

"""When two reviews count as the same text: one fixed key, for duplicates, splits and samples.

Two texts that become the same tokens under any setting of `tokenize` must share a key: else a copy of a test
review, in capitals say, could train the model that is evaluated on it. So the key ignores whatever a
tokenizer may ignore. It is independent of params: no split changes with a setting of the tokenizer.
"""

import re
import unicodedata

from tokenizers import normalizers

_TOKENIZERS_OWN = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
"""What `tokens.vocabulary` does at most to a text: its tables know newer letters than Python 3.11's."""

_UNSEEN = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f"  # control characters other than white space
    "\xad\u061c\u06dd\u070f\u0600-\u0605\u0890\u0891\u08e2\u200b-\u200f\u202a-\u202e\ufeff\ufff9-\ufffb"
    "\U000110bd\U000110cd\U00013430-\U0001343f"  # category Cf: soft hyphen, zero widths, directions, marks
    "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2060-\u206f\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"  # Default_Ignorable_Code_Point
)
"""Characters that show nothing, by Unicode 16: format characters, fillers, variation selectors, controls."""

_LINE_BREAK = re.compile("<br/?>")


def duplicate_key(text: str) -> str:
    """Return what two texts have in common exactly where they count as the same review.

    Left out: case in every script (ß is SS, ς is Σ, a dotless i is I), Unicode form (NFKC), characters that
    show nothing, HTML line breaks, and white space, since `good!great` and `good ! great` are the same
    tokens. What stays are letters, digits, punctuation and symbols. HTML entities stay as they are written,
    as the model sees them.
    """
    latin = as_latin(text)
    if latin is not None:
        key = latin.translate(_LATIN_FOLDED, _LATIN_IGNORED).decode("latin-1")
    else:
        key = unicodedata.normalize("NFKC", "".join(folded(text).split()))
    return _LINE_BREAK.sub("", key) if "<br" in key else key


def folded(text: str) -> str:
    """Return text without case, Unicode form and characters that show nothing; white space stays."""
    if (
        not text.isprintable()
    ):  # may hold letters that Python's tables lack; slow, so no other text goes there
        text = _TOKENIZERS_OWN.normalize_str(text)
    shown = unicodedata.normalize("NFKD", _UNSEEN.sub("", text))
    # Decomposed, since marks change their order with case (ᾷ). Upper case first: a dotless i becomes I and
    # then i, as in a copy in capitals.
    return unicodedata.normalize("NFKC", shown.upper().casefold())


def as_latin(text: str) -> bytes | None:
    """Return text as Latin-1 where `folded` turns each of its characters into one of Latin-1 or none.

    That is nearly all of English text, and a table folds it in a tenth of the time.
    """
    try:
        latin = text.encode("latin-1")
    except UnicodeEncodeError:
        return None
    return latin if text.isascii() or not any(letter in latin for letter in _LATIN_LONGER) else None


LATIN_FOLDED = [folded(chr(byte)) for byte in range(256)]
"""What becomes of each character of Latin-1."""

_LATIN_LONGER = [bytes([byte]) for byte, to in enumerate(LATIN_FOLDED) if len(to) > 1 or to > "\xff"]
_LATIN_FOLDED = bytes(ord(to) if len(to) == 1 and to <= "\xff" else 0 for to in LATIN_FOLDED)
_LATIN_IGNORED = bytes(byte for byte, to in enumerate(LATIN_FOLDED) if not to.strip())

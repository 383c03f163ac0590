"""Changed copies of a test review that must not be in the training split."""

import unicodedata
from collections.abc import Callable

COPIES: dict[str, Callable[[str], str]] = {
    "in capitals (Unicode 3.13: toUppercase)": str.upper,
    "in decomposed form (UAX 15: NFD)": lambda text: unicodedata.normalize("NFD", text),
    "in full-width letters (UAX 15: NFKC folds them)": lambda text: "".join(
        chr(ord(letter) + 0xFEE0) if "!" <= letter <= "~" else letter for letter in text
    ),
    "with zero-width joiners (Unicode 23.2: no visible effect)": lambda text: text.replace("a", "a\u200d"),
    "with soft hyphens (Unicode 6.2)": lambda text: text.replace("e", "e\u00ad"),
    "with no-break spaces and HTML breaks": lambda text: text.replace(" ", "\u00a0<BR/>\u2009"),
    "behind a byte-order mark": lambda text: "\ufeff" + text,
}
"""Each by name; the text is a real review."""

"""Changes of a text that leave the opinion of its author as it was."""

import html
import re
from collections.abc import Sequence

import numpy as np

TYPO_RATE = 0.05
"""Probability of a typing error in a word of at least `TYPO_LETTERS` letters: about 1% of the letters."""

TYPO_LETTERS = 4
"""Shorter words are left alone: swapped letters often turn them into other words, such as `no` into `on`."""

TAG_INTERVAL = 20
"""Every word at this interval is put in italics."""

_WORD = re.compile(rf"[^\W\d_]{{{TYPO_LETTERS},}}")
_SENTENCE_END = re.compile(r"(?<=[.!?]) ")


def add_line_breaks(text: str) -> str:
    """Put two HTML line breaks after each sentence, as paragraphs of IMDB reviews have them."""
    return _SENTENCE_END.sub("<br /><br />", text)


def add_tags(text: str) -> str:
    """Put the text in a paragraph, and some of its words in italics."""
    words = text.split(" ")
    for position in range(0, len(words), TAG_INTERVAL):
        words[position] = f"<i>{words[position]}</i>"
    return f"<p>{' '.join(words)}</p>"


def escape_entities(text: str) -> str:
    """Write quotation marks, apostrophes, ampersands and angle brackets as HTML entities."""
    return html.escape(text, quote=True)


def add_typos(text: str, rng: np.random.Generator) -> str:
    """Swap two adjacent letters in some words; the first letter stays in its place."""

    def swap(match: re.Match[str]) -> str:
        word = match[0]
        place = int(rng.integers(1, len(word) - 1))
        if rng.random() >= TYPO_RATE:
            return word
        return word[:place] + word[place + 1] + word[place] + word[place + 2 :]

    return _WORD.sub(swap, text)


def swap_names(text: str, names: Sequence[str], rng: np.random.Generator) -> str:
    """Replace every name of a list that occurs in a text by another name of the list.

    A name is replaced by the same other name wherever it occurs.
    """
    pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, names))})\b")
    replacements: dict[str, str] = {}
    for name in pattern.findall(text):
        if name not in replacements:
            others = [other for other in names if other != name]
            replacements[name] = others[int(rng.integers(len(others)))]
    return pattern.sub(lambda match: replacements[match[0]], text)

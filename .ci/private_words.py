"""Find words that a newcomer could not search for: `python .ci/private_words.py`, part of `make lint`.

Reads two files at the root of the repository. `.private-words` has one regular expression per line;
`.private-words-allowed` has one exception per line as `path:word:reason`, where `word` is a regular
expression that matches all of the text that a pattern found in that file. Lines that start with `#` are
comments.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SEARCHED = ("src", "stages", "README.md", "docs", "params.yaml")
MOST_EXCEPTIONS = 30


@dataclass(frozen=True)
class AllowedWord:
    """A word that may stay in one file."""

    path: str
    word: re.Pattern[str]
    line: str


@dataclass(frozen=True)
class Hit:
    """A private word in a file."""

    path: str
    number: int
    word: str
    text: str


def _lines(file: Path) -> list[str]:
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return [line for line in lines if line and not line.startswith("#")]


def read_exceptions(file: Path) -> list[AllowedWord]:
    """Read the exceptions.

    Raises:
        ValueError: A line is not `path:word:reason`, or there are more than MOST_EXCEPTIONS.
    """
    exceptions = []
    for line in _lines(file):
        path, _, rest = line.partition(":")
        word, _, reason = rest.partition(":")
        if not (path and word and reason.strip()):
            raise ValueError(f"{file.name}: {line!r}: expected path:word:reason")
        exceptions.append(AllowedWord(path, re.compile(word, re.IGNORECASE), line))
    if len(exceptions) > MOST_EXCEPTIONS:
        raise ValueError(f"{file.name}: {len(exceptions)} exceptions, at most {MOST_EXCEPTIONS}")
    return exceptions


def find_words(root: Path) -> Iterator[Hit]:
    """Yield every private word in the text files that git tracks or would track."""
    patterns = [re.compile(line, re.IGNORECASE) for line in _lines(root / ".private-words")]
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *SEARCHED]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.splitlines()
    for name in sorted(listed):
        try:
            text = (root / name).read_text(encoding="utf-8")
        except (UnicodeDecodeError, FileNotFoundError):
            continue  # an image, or deleted in the working tree
        for number, line in enumerate(text.splitlines(), start=1):
            for pattern in patterns:
                for match in pattern.finditer(line):
                    yield Hit(name, number, match[0], line.strip())


def main(root: Path) -> int:
    """Print private words and unused exceptions; return the exit status, 1 if there are any."""
    try:
        exceptions = read_exceptions(root / ".private-words-allowed")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    used: set[str] = set()
    status = 0
    for hit in find_words(root):
        allowed = [e for e in exceptions if e.path == hit.path and e.word.fullmatch(hit.word)]
        used |= {exception.line for exception in allowed}
        if not allowed:
            print(f"{hit.path}:{hit.number}: private word {hit.word!r}: {hit.text}", file=sys.stderr)
            status = 1
    for exception in exceptions:
        if exception.line not in used:
            print(f".private-words-allowed: nothing needs {exception.line!r}", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(Path.cwd()))

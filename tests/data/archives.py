"""Archives made for a test, laid out as the Large Movie Review Dataset's."""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

FILMS_EACH = 5
"""Reviews of one film that stand together."""


def write_archive(path: Path, members: Mapping[str, bytes], mode: str = "w:gz") -> Path:
    """Write a tar archive with these regular files, in this order."""
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def imdb_members(reviews: pa.Table) -> dict[str, bytes]:
    """Lay reviews out as the dataset does: half of each label in train, the rest in test, some unlabelled.

    The lists of films stand behind the reviews of train and before those of test.
    """
    members: dict[str, bytes] = {"aclImdb/README": b"Large Movie Review Dataset"}
    texts = {label: _texts(reviews, value) for label, value in {"neg": 0, "pos": 1}.items()}
    half = len(texts["neg"]) // 2
    for label, found in texts.items():
        members |= _named(f"aclImdb/train/{label}", found[:half], rating=9 if label == "pos" else 2)
    for label, found in texts.items():
        members[f"aclImdb/train/urls_{label}.txt"] = _urls(len(found[:half]))
        members[f"aclImdb/test/urls_{label}.txt"] = _urls(len(found[half:]))
        members |= _named(f"aclImdb/test/{label}", found[half:], rating=9 if label == "pos" else 2)
    return members | _named("aclImdb/train/unsup", texts["neg"][:10], rating=0)


def film(index: int) -> str:
    """Return the film of the review with this index."""
    return f"tt{index // FILMS_EACH:07}"


def _texts(reviews: pa.Table, label: int) -> list[str]:
    rows = reviews.to_pylist()
    return [row["text"] for row in rows if row["label"] == label]


def _named(folder: str, texts: list[str], rating: int) -> dict[str, bytes]:
    return {f"{folder}/{index}_{rating}.txt": text.encode() for index, text in enumerate(texts)}


def _urls(count: int) -> bytes:
    lines = [f"http://www.imdb.com/title/{film(index)}/usercomments" for index in range(count)]
    return ("\n".join(lines) + "\n").encode()

"""Archives that are corrupt, malicious or not of the expected format."""

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.data.archives import imdb_members, write_archive
from tests.data.invalid_sources import Case, Place, case
from tests.data.invalid_sources.hosts import ZEROS_MD5, ZEROS_SHA256, imdb

Members = dict[str, bytes]
NAME = "a.tar.gz"
MEMBER = "aclImdb/train/pos/0_9.txt"


def _written(content: bytes, **source: Any) -> dict[str, Any]:
    Path(NAME).write_bytes(content)
    return _source(**source)


def _source(**source: Any) -> dict[str, Any]:
    (made,) = imdb(NAME)["sources"]
    return {"sources": [{**made, **source}]}


def _whole(place: Place, mode: str = "w:gz") -> bytes:
    return write_archive(Path(NAME), imdb_members(place.reviews), mode).read_bytes()


def _cut(name: str, where: Callable[[int], int], messages: str, mode: str = "w:gz") -> Case:
    def prepare(place: Place) -> dict[str, Any]:
        content = _whole(place, mode)
        return _written(content[: where(len(content))])

    return case(name, prepare, f"{NAME}: {messages}")


def _changed(name: str, change: Callable[[Members], object], *messages: str) -> Case:
    def prepare(place: Place) -> dict[str, Any]:
        members = imdb_members(place.reviews)
        change(members)
        write_archive(Path(NAME), members)
        return _source()

    return case(name, prepare, NAME, *messages)


def _with(member: tarfile.TarInfo, messages: str, content: bytes = b"") -> Case:
    """An archive of real reviews, and this at its end."""

    def prepare(place: Place) -> dict[str, Any]:
        with tarfile.open(NAME, "w:gz") as archive:
            for name, text in imdb_members(place.reviews).items():
                review = tarfile.TarInfo(name)
                review.size = len(text)
                archive.addfile(review, io.BytesIO(text))
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        return _source()

    return case(
        f"{member.name} of type {member.type!r}", prepare, f"{NAME}: member {member.name!r}: {messages}"
    )


def _of_type(kind: bytes, name: str = "aclImdb/train/pos/999_9.txt") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, "/etc/passwd"
    return member


def _limited(messages: str, **limits: float) -> Case:
    def prepare(place: Place) -> dict[str, Any]:
        _whole(place)
        return _source(limits=limits)

    return case(f"limits {limits}", prepare, f"{NAME}: ", messages)


def _zipped() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(MEMBER, "Fine. " * 100)
    return made.getvalue()


def _folder(_: Place) -> dict[str, Any]:
    Path(NAME).mkdir()
    return _source()


def _flipped(place: Place) -> dict[str, Any]:
    content = bytearray(_whole(place))
    content[-6] ^= 1  # in gzip's own checksum
    return _written(bytes(content))


NOT_TAR = f"{NAME}: not a tar archive, uncompressed or compressed with gzip"

CASES = [
    case("archive is missing", lambda _: _source(), f"{NAME}: no such file"),
    case("archive is a folder", _folder, f"{NAME}: a folder, not a file"),
    case(
        "wrong MD5 of a local archive",
        lambda place: _written(_whole(place), checksum=ZEROS_MD5),
        f"{NAME}: wrong checksum: expected {ZEROS_MD5}, found md5:",
    ),
    case(
        "wrong SHA-256 of a local archive",
        lambda place: _written(_whole(place), checksum=ZEROS_SHA256),
        f"{NAME}: wrong checksum: expected {ZEROS_SHA256}, found sha256:",
    ),
    case("archive of zero bytes", lambda _: _written(b""), f"{NAME}: the file is empty (0 bytes)"),
    case("text", lambda _: _written(b"A fine film. " * 100), NOT_TAR),
    case("a few bytes", lambda _: _written(b"A fine film."), NOT_TAR),
    case("HTML", lambda _: _written(b"<!DOCTYPE html><html>" + b" " * 2000), NOT_TAR),
    case("gzipped text", lambda _: _written(gzip.compress(b"A fine film. " * 100)), NOT_TAR),
    case("zip", lambda _: _written(_zipped()), NOT_TAR),
    _cut("cut in the gzip header", lambda _: 5, "truncated"),
    _cut("cut after a quarter", lambda size: size // 4, "truncated"),
    _cut("cut in the middle", lambda size: size // 2, "truncated"),
    _cut("cut before gzip's checksum", lambda size: size - 8, "truncated"),
    _cut("cut by one byte", lambda size: size - 1, "truncated"),
    _cut("plain, cut in the middle", lambda size: size // 2, "truncated: it ends", "w"),
    _cut("plain, cut before its end mark", lambda size: size // 10240 * 10240 - 10240, "truncated", "w"),
    case("bit flipped in gzip's checksum", _flipped, f"{NAME}: corrupt: CRC check failed"),
    _with(_of_type(tarfile.REGTYPE, "/etc/cron.d/evil"), "absolute path", b"evil"),
    _with(_of_type(tarfile.REGTYPE, "C:/evil.txt"), "absolute path", b"evil"),
    _with(_of_type(tarfile.REGTYPE, "aclImdb/../../evil"), "path outside the archive", b"evil"),
    _with(_of_type(tarfile.REGTYPE, ".."), "path outside the archive", b"evil"),
    _with(_of_type(tarfile.REGTYPE, "..\\evil"), "backslash in the path", b"evil"),
    _with(_of_type(tarfile.SYMTYPE), "a symbolic link, expected only files and folders"),
    _with(_of_type(tarfile.LNKTYPE), "a hard link, expected only files and folders"),
    _with(_of_type(tarfile.CHRTYPE), "a device or pipe, expected only files and folders"),
    _with(_of_type(tarfile.BLKTYPE), "a device or pipe, expected only files and folders"),
    _with(_of_type(tarfile.FIFOTYPE), "a device or pipe, expected only files and folders"),
    _with(_of_type(tarfile.GNUTYPE_SPARSE), "a sparse file, expected only files and folders"),
    _limited("more than 100 members", members=100),
    _limited("bytes, more than the limit of 500", member_bytes=500),
    _limited("more than 50,000 bytes when decompressed", total_bytes=50_000),
    _changed(
        "member that packs a thousandfold",
        lambda members: members.update({"aclImdb/README": bytes(20_000_000)}),
        "'aclImdb/README': more than 100 times its size when decompressed",
    ),
    _changed(
        "member of more than a review ever has",
        lambda members: members.update({MEMBER: b"x" * 100_000_001}),
        f"{MEMBER!r}: 100,000,001 bytes, more than the limit of 100,000,000",
    ),
    case(
        "contains no reviews",
        lambda _: _written(write_archive(Path(NAME), {"imdb/a.txt": b"Good."}).read_bytes()),
        f"{NAME}: contains no reviews; expected members named aclImdb/{{train,test}}/{{pos,neg}}/",
    ),
    case(
        "no members in it",
        lambda _: _written(write_archive(Path(NAME), {}).read_bytes()),
        f"{NAME}: contains no reviews",
    ),
    _changed(
        "number of a review beyond reason",
        lambda members: (
            members.update({f"aclImdb/train/pos/{'9' * 60}_9.txt": b"Good."})
            or [members.pop(name) for name in list(members) if name != f"aclImdb/train/pos/{'9' * 60}_9.txt"]
        ),
        "contains no reviews",
    ),
    *(
        _changed(
            f"no list of films of {half}/{label}",
            lambda members, name=f"aclImdb/{half}/urls_{label}.txt": members.pop(name),
            f"aclImdb/{half}/urls_{label}.txt, which has the films of reviews",
        )
        for half, label in (("train", "pos"), ("test", "neg"))
    ),
    _changed(
        "review without a line in the list",
        lambda members: members.update({"aclImdb/train/neg/999_1.txt": b"Late."}),
        "train/neg/999_1.txt: aclImdb/train/urls_neg.txt has only 50 lines and no film for this review",
    ),
    _changed(
        "line without a film",
        lambda members: members.update({"aclImdb/test/urls_pos.txt": b"http://example.com/\n" * 60}),
        "test/urls_pos.txt, line 1: no film id in 'http://example.com/'",
    ),
    _changed(
        "review in Latin-1",
        lambda members: members.update({MEMBER: "Ein schöner Film".encode("latin-1")}),
        f"{MEMBER}: not UTF-8 text (invalid start byte at byte 7)",
    ),
    _changed(
        "list of films in UTF-16",
        lambda members: members.update(
            {"aclImdb/train/urls_pos.txt": members["aclImdb/train/urls_pos.txt"].decode().encode("utf-16")}
        ),
        "aclImdb/train/urls_pos.txt: not UTF-8 text",
    ),
]

import gzip
import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from sentiment.data.archive import MAX_EXTENSION_BYTES, stream_members
from sentiment.errors import UserError
from sentiment.params.sources import ArchiveLimits
from tests.data.archives import write_archive

LIMITS = ArchiveLimits()
MEMBERS = {"a/one.txt": b"one", "a/empty.txt": b"", "a/two.txt": b"2" * 2000, "a/block.txt": b"b" * 512}


def read(path: Path, **limits: float) -> dict[str, bytes]:
    return dict(stream_members(path, LIMITS.model_copy(update=limits)))


def with_member(path: Path, member: tarfile.TarInfo, content: bytes = b"") -> Path:
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_read_in_order(mode: str, form: int, tmp_path: Path) -> None:
    long_name = "a/" + "long/" * 20 + "n" * 60 + ".txt"
    names = {**MEMBERS, long_name: b"long"}
    if form != tarfile.USTAR_FORMAT:
        names["a/" + "é" * 150] = b"not ASCII"
    with tarfile.open(tmp_path / "a.tar", mode, format=form) as archive:  # type: ignore[call-overload]
        for name, content in names.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    assert list(stream_members(tmp_path / "a.tar", LIMITS)) == list(names.items())


@pytest.mark.slow
def test_archive_of_tar_command_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one.txt").write_bytes(b"one")
    subprocess.run(["tar", "czf", "x.tar.gz", "./a"], cwd=tmp_path, check=True)
    assert read(tmp_path / "x.tar.gz") == {"a/one.txt": b"one"}


def test_only_wanted_members_are_yielded(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "a.tar.gz", MEMBERS)
    assert [name for name, _ in stream_members(path, LIMITS, lambda name: "two" in name)] == ["a/two.txt"]


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("/etc/passwd", "absolute"),
        ("C:/boot.ini", "absolute"),
        ("a/../../b", "outside the archive"),
        ("..", "outside the archive"),
        ("a\\b", "backslash"),
        ("a/" + "b" * 200 + "/../../../c", "outside the archive"),
    ],
)
def test_path_out_of_the_archive_is_rejected(name: str, rule: str, tmp_path: Path) -> None:
    path = write_archive(tmp_path / "a.tar.gz", {name: b"content"})
    with pytest.raises(UserError, match=rule) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        (tarfile.SYMTYPE, "symbolic link"),
        (tarfile.LNKTYPE, "hard link"),
        (tarfile.CHRTYPE, "device or pipe"),
        (tarfile.BLKTYPE, "device or pipe"),
        (tarfile.FIFOTYPE, "device or pipe"),
        (tarfile.GNUTYPE_SPARSE, "sparse"),
        (b"V", "type"),
    ],
)
def test_links_and_devices_are_rejected(kind: bytes, rule: str, tmp_path: Path) -> None:
    member = tarfile.TarInfo("a/odd")
    member.type = kind
    member.linkname = "one.txt"
    with pytest.raises(UserError, match=f"'a/odd': .*{rule}"):
        read(with_member(tmp_path / "a.tar.gz", member))


def test_sparse_file_in_posix_format_is_rejected(tmp_path: Path) -> None:
    member = tarfile.TarInfo("a/holes")
    member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.realsize": "1000000000000"}
    with pytest.raises(UserError, match="sparse"):
        read(with_member(tmp_path / "a.tar.gz", member))


def test_member_count_is_limited(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "a.tar.gz", MEMBERS)
    assert len(read(path, members=4)) == 4
    with pytest.raises(UserError, match=r"'a/block.txt': more than 3 members"):
        read(path, members=3)


@pytest.mark.parametrize("wanted", [True, False])
def test_member_size_in_header_is_limited(wanted: bool, tmp_path: Path) -> None:
    member = tarfile.TarInfo("a/huge")
    member.size = 10**12
    (tmp_path / "a.tar").write_bytes(member.tobuf() + b"only this")
    with pytest.raises(
        UserError, match=r"'a/huge': 1,000,000,000,000 bytes, more than the limit of 100,000,000"
    ):
        list(stream_members(tmp_path / "a.tar", LIMITS, lambda _: wanted))


def test_member_size_in_extended_header_is_limited(tmp_path: Path) -> None:
    member = tarfile.TarInfo("a/huge")
    member.pax_headers = {"size": "999999999999"}
    with pytest.raises(UserError, match="999,999,999,999 bytes"):
        read(with_member(tmp_path / "a.tar.gz", member))


def test_size_of_extended_header_is_limited(tmp_path: Path) -> None:
    member = tarfile.TarInfo("a/name")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, MAX_EXTENSION_BYTES + 1
    (tmp_path / "a.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT))
    with pytest.raises(UserError, match="extended header of 65,537 bytes"):
        read(tmp_path / "a.tar")


def test_total_size_is_limited(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "a.tar", MEMBERS, "w")
    with pytest.raises(UserError, match="more than 4,000 bytes when decompressed"):
        read(path, total_bytes=4_000)


@pytest.mark.slow
@pytest.mark.parametrize("wanted", [True, False])
def test_decompression_bomb_is_rejected_with_little_memory(wanted: bool, tmp_path: Path) -> None:
    path = write_archive(tmp_path / "a.tar.gz", {f"{i}": b"\0" * 10_000_000 for i in range(4)})
    code = (
        "import sys, pathlib, resource\n"
        "from sentiment.data.archive import stream_members\n"
        "from sentiment.params.sources import ArchiveLimits\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n"
        f"    list(stream_members(pathlib.Path(sys.argv[1]), ArchiveLimits(), lambda _: {wanted}))\n"
        "except Exception as error:\n"
        "    print(error)\n"
        "    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    message, grown = done.stdout.splitlines()
    assert "more than 100 times its size when decompressed" in message
    megabytes = int(grown) / (1_000_000 if sys.platform == "darwin" else 1_000)
    assert megabytes < (30 if wanted else 5)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.9, 0.999])
def test_truncated_gzip_is_an_error(share: float, tmp_path: Path) -> None:
    path = write_archive(tmp_path / "a.tar.gz", {f"{i}.txt": bytes([i % 7] * i) for i in range(500)})
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match=r"a\.tar\.gz: truncated"):
        read(path)


@pytest.mark.parametrize("length", [700, 1024, 1536, 2100, 2560])
def test_truncated_tar_is_an_error(length: int, tmp_path: Path) -> None:
    path = write_archive(tmp_path / "a.tar", MEMBERS, "w")
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(UserError, match="truncated"):
        read(path)


def test_missing_end_of_archive_in_complete_gzip_is_an_error(tmp_path: Path) -> None:
    whole = write_archive(tmp_path / "a.tar", {"one.txt": b"one"}, "w").read_bytes()
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(whole[:1024]))
    with pytest.raises(UserError, match="without an end-of-archive marker"):
        read(tmp_path / "a.tar.gz")


def test_corrupt_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "a.tar", MEMBERS, "w")
    content = bytearray(path.read_bytes())
    content[1024 + 5] ^= 0xFF  # in the name of the second member
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"corrupt header \(bad checksum\) at byte 1,024"):
        read(path)


def test_corrupt_content_fails_its_checksum(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "a.tar.gz", MEMBERS)
    content = bytearray(path.read_bytes())
    content[-6] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(UserError, match="corrupt"):
        read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"<html>moved</html>", "not a tar archive"),
        (b"<html>" * 1000, "not a tar archive"),
        (gzip.compress(b"text,label\n" * 1000), "not a tar archive"),
    ],
    ids=["empty", "short page", "long page", "gzipped text"],
)
def test_file_that_is_not_an_archive_is_rejected(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(content)
    with pytest.raises(UserError, match=rf"a\.tar\.gz: {message}"):
        read(tmp_path / "a.tar.gz")


def test_missing_archive_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.tar\.gz: No such file"):
        read(tmp_path / "a.tar.gz")

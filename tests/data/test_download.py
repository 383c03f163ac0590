import base64
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest

from sentiment.data import download as downloading
from sentiment.data.download import fetch
from sentiment.data.locations import make_file_name, redact_url
from sentiment.errors import UserError
from tests.data.server import Served, serving

CONTENT = np.random.default_rng(0).bytes(400_000)
OTHER = np.random.default_rng(1).bytes(400_000)


def md5(content: bytes) -> str:
    return f"md5:{hashlib.md5(content, usedforsecurity=False).hexdigest()}"


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty repository and cache, and no time lost between tries."""
    monkeypatch.setattr(downloading, "FIRST_WAIT", 0.001)
    monkeypatch.delenv("DOWNLOAD_CACHE", raising=False)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    return tmp_path / ".cache" / "downloads"


@pytest.fixture
def server() -> Iterator[Served]:
    with serving(CONTENT) as served:
        yield served


def whole_files(cache: Path) -> list[bytes]:
    """Contents that somebody could take for a finished download."""
    return [path.read_bytes() for path in cache.rglob("*") if path.is_file() and path.name[0] != "."]


def went_on(ranges: str | None) -> bool:
    """Whether a request asked for the rest of a file: of how much, depends on what aiohttp let through."""
    return ranges is not None and 0 < int(ranges.removeprefix("bytes=").removesuffix("-")) <= 100_000


@pytest.mark.parametrize("checksum", [None, md5(CONTENT), sha256(CONTENT), sha256(CONTENT).upper()])
def test_download_is_cached(checksum: str | None, server: Served, cache: Path) -> None:
    path = fetch([server.url()], checksum)
    assert path.read_bytes() == CONTENT
    assert path.is_relative_to(cache)
    assert path.name == "reviews.tar.gz"


def test_environment_variable_sets_the_cache_folder(
    server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOWNLOAD_CACHE", "elsewhere")
    assert fetch([server.url()], None).is_relative_to(tmp_path / "elsewhere")


def test_cached_file_with_checksum_needs_no_request(server: Served) -> None:
    path = fetch([server.url()], md5(CONTENT))
    asked = len(server.asked)
    assert fetch(["http://127.0.0.1:1/closed.tar.gz", server.url()], md5(CONTENT)) == path
    assert len(server.asked) == asked


def test_file_without_checksum_is_downloaded_again_only_if_it_changed(server: Served) -> None:
    fetch([server.url()], None)
    fetch([server.url()], None)
    assert len(server.downloads) == 1
    server.content, server.etag = OTHER, '"two"'
    assert fetch([server.url()], None).read_bytes() == OTHER
    assert len(server.downloads) == 2


def test_truncated_file_without_checksum_is_downloaded_again(server: Served) -> None:
    path = fetch([server.url()], None)
    os.truncate(path, 1000)
    assert fetch([server.url()], None).read_bytes() == CONTENT


def test_file_without_checksum_and_tag_is_downloaded_again(server: Served) -> None:
    server.etag = None
    fetch([server.url()], None)
    server.content = OTHER
    assert fetch([server.url()], None).read_bytes() == OTHER


def test_corrupt_cached_file_is_downloaded_again(server: Served) -> None:
    path = fetch([server.url()], md5(CONTENT))
    path.write_bytes(OTHER)
    assert fetch([server.url()], md5(CONTENT)).read_bytes() == CONTENT


def test_wrong_checksum_is_reported_and_file_deleted(server: Served, cache: Path) -> None:
    with pytest.raises(UserError) as caught:
        fetch([server.url()], md5(OTHER))
    assert f"expected {md5(OTHER)}, found {md5(CONTENT)}" in str(caught.value)
    assert not whole_files(cache)
    assert not list(cache.rglob("*.partial"))


@pytest.mark.parametrize("checksum", ["md5", "md5:12", "sha1:" + "0" * 40, "md5:" + "g" * 32, ""])
def test_invalid_checksum_is_an_error(checksum: str, server: Served) -> None:
    with pytest.raises(UserError, match="expected md5: with 32 or sha256: with 64"):
        fetch([server.url()], checksum)
    assert not server.asked


@pytest.mark.parametrize("as_url", [True, False])
def test_local_file_is_not_copied(as_url: bool, tmp_path: Path, cache: Path) -> None:
    file = tmp_path / "my reviews.tar.gz"
    file.write_bytes(CONTENT)
    assert fetch([file.as_uri() if as_url else str(file)], md5(CONTENT)) == file
    assert not cache.exists()


def test_relative_path_is_resolved_from_a_copy_of_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (tmp_path / "reviews.tar.gz").write_bytes(CONTENT)
    monkeypatch.chdir(tmp_path_factory.mktemp("copy"))
    assert fetch(["reviews.tar.gz"], None) == tmp_path / "reviews.tar.gz"


def test_local_file_with_wrong_checksum_is_not_deleted(tmp_path: Path) -> None:
    file = tmp_path / "reviews.tar.gz"
    file.write_bytes(OTHER)
    with pytest.raises(UserError, match=f"expected {md5(CONTENT)}, found {md5(OTHER)}"):
        fetch([str(file)], md5(CONTENT))
    assert file.read_bytes() == OTHER


@pytest.mark.parametrize("failures", [[100_000], [503], [503, 100_000, 502, 200_000], [50_000] * 6])
def test_transient_failures_are_retried(failures: list[int], server: Served) -> None:
    server.failures = failures
    assert fetch([server.url()], None).read_bytes() == CONTENT


def test_interrupted_download_is_resumed(server: Served) -> None:
    server.failures = [100_000]
    assert fetch([server.url()], md5(CONTENT)).read_bytes() == CONTENT
    first, second = server.downloads
    assert first is None
    assert went_on(second)


def test_failed_download_is_resumed_in_the_next_run(server: Served, cache: Path) -> None:
    server.failures = [100_000, *[503] * 20]
    with pytest.raises(UserError, match="503"):
        fetch([server.url()], None)
    assert not whole_files(cache)
    have = next(cache.rglob("*.partial")).stat().st_size
    server.failures.clear()
    assert fetch([server.url()], None).read_bytes() == CONTENT
    assert went_on(server.downloads[-1])
    assert server.downloads[-1] == f"bytes={have}-"


@pytest.mark.parametrize("quirk", ["honours_ranges", "wrong_ranges"])
def test_download_restarts_if_the_server_cannot_resume(quirk: str, server: Served) -> None:
    setattr(server, quirk, quirk == "wrong_ranges")
    server.failures = [100_000]
    assert fetch([server.url()], None).read_bytes() == CONTENT


def test_retries_end_if_the_server_cannot_resume(server: Served) -> None:
    server.honours_ranges = False
    server.failures = [100_000] * 50
    with pytest.raises(UserError, match="cannot fetch"):
        fetch([server.url()], None)
    assert len(server.downloads) <= 3 * downloading.MAX_ATTEMPTS


@pytest.mark.parametrize("checksum", [None, md5(OTHER)])
def test_partial_download_of_another_version_is_deleted(checksum: str | None, server: Served) -> None:
    server.failures = [100_000, *[503] * 20]
    with pytest.raises(UserError):
        fetch([server.url()], checksum)
    server.failures.clear()
    server.content, server.etag = OTHER, '"two"'
    asked = len(server.downloads)
    assert fetch([server.url()], checksum).read_bytes() == OTHER
    assert server.downloads[asked:] == [None]


def test_mixed_parts_of_two_versions_are_downloaded_again(server: Served) -> None:
    server.etag = None
    server.failures = [100_000, *[503] * 20]
    with pytest.raises(UserError):
        fetch([server.url()], md5(OTHER))
    server.failures.clear()
    server.content = OTHER
    asked = len(server.downloads)
    assert fetch([server.url()], md5(OTHER)).read_bytes() == OTHER
    first, second = server.downloads[asked:]
    assert went_on(first)
    assert second is None


@pytest.mark.slow
def test_download_of_killed_process_is_resumed(server: Served, cache: Path) -> None:
    server.seconds_per_chunk = 0.05
    code = "import sys; from sentiment.data.download import fetch; fetch(sys.argv[1:], None)"
    process = subprocess.Popen([sys.executable, "-c", code, server.url()])
    limit = time.monotonic() + 20
    partial: list[Path] = []
    while not (partial and partial[0].stat().st_size > 50_000):
        assert time.monotonic() < limit
        time.sleep(0.01)
        partial = list(cache.rglob("*.partial"))
    process.kill()
    process.wait()
    have = partial[0].stat().st_size
    assert have < len(CONTENT)
    assert not whole_files(cache)
    server.seconds_per_chunk = 0
    assert fetch([server.url()], None).read_bytes() == CONTENT
    assert server.downloads == [None, f"bytes={have}-"]


def test_complete_download_of_killed_process_is_not_repeated(server: Served, cache: Path) -> None:
    path = fetch([server.url()], md5(CONTENT))
    record = next(cache.rglob(".*.json"))
    path.rename(record.with_suffix(".partial"))
    assert fetch([server.url()], md5(CONTENT)).read_bytes() == CONTENT
    assert len(server.downloads) == 1


@pytest.mark.slow
def test_two_processes_download_once(server: Served) -> None:
    server.seconds_per_chunk = 0.01
    code = "import sys; from sentiment.data.download import fetch; fetch(sys.argv[1:], None)"
    both = [subprocess.Popen([sys.executable, "-c", code, server.url()]) for _ in range(2)]
    assert [process.wait(timeout=30) for process in both] == [0, 0]
    assert len(server.downloads) == 1


def test_file_of_unknown_size_is_read_to_the_end(server: Served) -> None:
    server.chunked = True
    assert fetch([server.url()], md5(CONTENT)).read_bytes() == CONTENT


def test_empty_file_is_downloaded() -> None:
    with serving(b"") as server:
        assert fetch([server.url()], None).read_bytes() == b""


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_permanent_failure_is_not_retried(status: int, server: Served) -> None:
    server.status = status
    with pytest.raises(UserError, match=f"reviews.tar.gz: {status}"):
        fetch([server.url()], None)
    assert len(server.asked) == 2  # fsspec asks by HEAD, then by GET


def test_next_mirror_is_tried(server: Served, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    wrong = tmp_path / "wrong.tar.gz"
    wrong.write_bytes(OTHER)
    with serving(b"", status=404) as gone:
        path = fetch([gone.url(), str(wrong), server.url()], md5(CONTENT))
    assert path.read_bytes() == CONTENT
    assert "404 Not Found; trying mirror 2 of 3" in caplog.text


def test_each_mirror_is_listed_with_its_reason(server: Served, tmp_path: Path) -> None:
    server.status = 403
    closed = "http://127.0.0.1:1/reviews.tar.gz"
    with pytest.raises(UserError) as caught:
        fetch([server.url(), closed, str(tmp_path / "none.tar.gz"), str(tmp_path)], None)
    first, *reasons = str(caught.value).splitlines()
    assert first == "none of 4 mirrors serves the file"
    assert "403 Forbidden" in reasons[0]
    assert closed in reasons[1]
    assert "onnect" in reasons[1]
    assert "no such file" in reasons[2]
    assert "a folder" in reasons[3]


@pytest.mark.parametrize("status", [403, 503])
def test_secrets_of_a_url_are_not_logged(
    status: int,
    server: Served,
    cache: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    secret = server.url("reviews.tar.gz?token=query-word", user="someone:pass-word@")
    fetch([secret], None)
    server.status = status
    with pytest.raises(UserError) as caught:
        fetch([secret, "http://someone:pass-word@127.0.0.1:1/x?token=query-word"], None)
    kept = "".join(f"{path}{path.read_bytes()!r}" for path in cache.rglob("*.json"))
    for text in (str(caught.value), *capsys.readouterr(), caplog.text, kept):
        assert "-word" not in text
        assert "someone" not in text


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://u:p@host:8080/a/b.tar.gz?sig=x#y", "https://host:8080/a/b.tar.gz"),
        ("s3://key:secret@bucket/a", "s3://bucket/a"),
        ("https://u:p@[::1/a?b", "https://…"),
        ("https://u:p@ss/w@host/a?b", "https://…"),
        ("https://u:pa/ss@host/a", "https://…"),
        ("/data/a b.tar.gz", "/data/a b.tar.gz"),
        ("C:\\data\\a.tar.gz", "C:\\data\\a.tar.gz"),
    ],
)
def test_url_is_redacted(url: str, expected: str) -> None:
    assert redact_url(url) == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://host/a/b%20c.tar.gz?x=/y", "b_c.tar.gz"),
        ("https://host/", "file"),
        ("https://host/%2e%2e%2f%2e%2e", "file"),
        ("https://host/.bashrc", "bashrc"),
    ],
)
def test_file_name_in_the_cache_is_safe(url: str, expected: str) -> None:
    assert make_file_name(url) == expected


def test_password_of_a_url_is_sent_to_the_server(server: Served) -> None:
    fetch([server.url(user="someone:word@")], None)
    sent = base64.b64encode(b"someone:word").decode()
    assert server.authorizations == [f"Basic {sent}"] * len(server.asked)


def test_other_protocols_use_fsspec() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/here/reviews.tar.gz", CONTENT)
    path = fetch(["memory://here/reviews.tar.gz"], None)
    assert path.read_bytes() == CONTENT
    made = path.stat().st_mtime_ns
    assert fetch(["memory://here/reviews.tar.gz"], None).stat().st_mtime_ns == made
    memory.pipe_file("/here/reviews.tar.gz", OTHER)
    assert fetch(["memory://here/reviews.tar.gz"], None).read_bytes() == OTHER
    with pytest.raises(UserError, match="no such file"):
        fetch(["memory://here/nothing"], None)


@pytest.mark.parametrize(
    ("url", "need"),
    [
        ("s3://bucket/a.tar.gz", r'pip install "fsspec\[s3\]"'),
        ("gs://bucket/a.tar.gz", r'pip install "fsspec\[gs\]"'),
        ("ssh://host/a.tar.gz", r'pip install "fsspec\[ssh\]"'),
        ("carrier-pigeon://a/b", "Protocol not known"),
    ],
)
def test_missing_package_is_named(url: str, need: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("s3fs", "gcsfs", "paramiko"):  # a developer may have them
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=need):
        fetch([url], None)


@pytest.mark.slow
def test_full_disk_names_the_cache_and_leaves_nothing(server: Served, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    code = (
        "import sys; from sentiment.data.download import fetch\n"
        "from sentiment.errors import exits_cleanly\n"
        "exits_cleanly(lambda: print(fetch(sys.argv[1:], None)))()"
    )
    script = (
        f"mount -t tmpfs -o size=200k tmpfs {small} || exit 77\n"
        f'"$0" -c "$1" "$2"; status=$?; find {small} -type f -size +0; exit $status'
    )
    done = subprocess.run(
        [
            "unshare",
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            script,
            sys.executable,
            code,
            server.url(),
        ],
        env={**os.environ, "DOWNLOAD_CACHE": str(small)},
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare" in done.stderr or done.returncode == 77:
        pytest.skip("mounting a small disk needs privileges that are missing here")
    assert done.returncode == 2
    assert f"the disk is full: cannot write {server.url()} to {small}" in done.stderr
    assert done.stdout == ""


def test_read_only_cache_folder_is_named(server: Served, cache: Path) -> None:
    cache.parent.mkdir()
    cache.write_text("a file where the folder should be")
    with pytest.raises(UserError, match=f"cannot write to the download cache {cache}"):
        fetch([server.url()], None)


def test_corrupt_version_file_causes_a_download(server: Served, cache: Path) -> None:
    fetch([server.url()], None)
    next(cache.rglob(".*.json")).write_text(json.dumps({"etag": "of an older program"}))
    assert fetch([server.url()], None).read_bytes() == CONTENT


def test_empty_list_of_urls_is_a_user_error() -> None:
    with pytest.raises(UserError, match="no URL"):
        fetch([], None)


@pytest.mark.slow
def test_stage_does_not_import_the_http_library() -> None:
    code = "import sys, sentiment.data.download; print({'fsspec', 'aiohttp'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"

"""`sentiment predict`, run as a command on an untrained model."""

import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from sentiment.input_lines import LONGEST_LINE
from sentiment.model.classifier import SentimentClassifier
from sentiment.model.model_files import export_model, save_model
from sentiment.model.ngram_branch import fit_ngram_branch
from sentiment.params.data import TokenizeParams
from sentiment.params.model import ModelParams, NGrams
from sentiment.predict import escape
from sentiment.tokens.token_store import TokenizedReviews
from sentiment.tokens.vocabulary import TextEncoder, train_tokenizer
from tests.model.small_model import model_params

SENTIMENT = str(Path(sys.executable).with_name("sentiment"))
LIMIT_S = 120


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, reviews: pa.Table) -> Path:
    """A folder with an untrained model and a tokenizer of real reviews."""
    folder = tmp_path_factory.mktemp("model")
    texts = reviews["text"].to_pylist()
    tokenizer = train_tokenizer(
        texts,
        TokenizeParams(kind="word", vocabulary_size=500, min_frequency=1, lowercase=True, oov_rate=1.0),
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    ngrams = NGrams(order=2, min_reviews=2, smoothing=0.01, weight=0.5)
    tokens = TokenizedReviews.from_lists(TextEncoder(tokenizer)(texts), reviews["label"].to_numpy())
    torch.manual_seed(0)
    params: ModelParams = model_params(ngrams=ngrams)
    classifier = SentimentClassifier(params, tokenizer.get_vocab_size(), fit_ngram_branch(tokens, ngrams)[0])
    save_model(folder / "candidate", classifier)
    export_model(folder / "candidate", folder / "served", folder / "tokenizer.json")
    return folder / "served"


def _predict(
    model: Path, *arguments: str | bytes, stdin: bytes | None = b"", status: int = 0, **environment: str
) -> list[str]:
    """Return the lines of standard output, or those of standard error if a non-zero status is expected."""
    done = subprocess.run(
        [SENTIMENT, "predict", "--model", str(model), *arguments],
        input=stdin,
        env={**os.environ, **environment},
        capture_output=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == status, done.stderr.decode()
    assert b"Traceback" not in done.stderr
    if status:
        return done.stderr.decode().splitlines()
    return done.stdout.decode().split("\n")[:-1]


def _probabilities(printed: list[str]) -> list[float]:
    return [float(line.partition("\t")[0]) for line in printed]


def test_each_line_has_a_result_in_order_and_independent_of_the_others(
    model: Path, reviews: pa.Table
) -> None:
    texts = reviews["text"].to_pylist()
    texts[3] = ""
    printed = _predict(model, stdin="".join(f"{text}\n" for text in texts).encode())
    assert [line.partition("\t")[2] for line in printed] == [escape(text) for text in texts]
    few = [0, 3, 50, 199]
    alone = [_probabilities(_predict(model, stdin=f"{texts[row]}\n".encode()))[0] for row in few]
    together = np.array(_probabilities(printed))[few]
    np.testing.assert_allclose(alone, together, atol=1.01e-4)  # one unit of the fourth digit
    assert len(set(_probabilities(printed))) > 50


def test_arguments_and_lines_have_the_same_results(model: Path) -> None:
    arguments = ("A fine film.", "", "Naïve, café ☕", "c:\\film", "a\tb\nc\r\x1b[2J\0"[:-1])
    printed = _predict(model, *arguments)
    assert len(printed) == len(arguments)
    assert printed[1].endswith("\t")
    assert [line.partition("\t")[2] for line in printed[2:]] == [
        "Naïve, café ☕",
        r"c:\\film",
        r"a\tb\nc\r\x1b[2J",
    ]
    lines = "".join(f"{argument}\n" for argument in arguments[:4]).encode()
    assert _predict(model, stdin=lines) == printed[:4]


@pytest.mark.parametrize("text", ["a\tb\\n\n\u2028\x85\x0c\x00é", "\\", "\\t"])
def test_escaped_text_can_be_unescaped(text: str) -> None:
    written = escape(text)
    assert len(written.splitlines()) == 1
    assert "\t" not in written
    assert written.encode("latin-1", "backslashreplace").decode("unicode_escape") == text


def test_text_is_utf8_whatever_the_locale(model: Path) -> None:
    expected = _predict(model, "café")
    ascii_locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    assert _predict(model, "café".encode(), **ascii_locale) == expected
    assert _predict(model, stdin="café\n".encode(), **ascii_locale) == expected


def test_undecodable_argument_is_a_one_line_error(model: Path) -> None:
    (error,) = _predict(model, "fine", b"caf\xe9", status=2)
    assert "review 2 of the command line: not UTF-8 text" in error


def test_results_before_an_undecodable_line_are_printed(model: Path) -> None:
    done = subprocess.run(
        [SENTIMENT, "predict", "--model", str(model)],
        input=b"a\nb\nc\xff\nd\n",
        capture_output=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 2
    assert len(done.stdout.splitlines()) == 2
    assert done.stderr.startswith(b"error: standard input: not UTF-8 text in line 3 ")


def test_long_line_is_predicted_and_too_long_line_is_an_error(model: Path) -> None:
    assert len(_predict(model, stdin=b"fine film " * 100_000 + b"\nb\n")) == 2
    (error,) = _predict(model, stdin=b"x" * (LONGEST_LINE + 1), status=2)
    assert f"line 1 is longer than {LONGEST_LINE:,} bytes" in error


@pytest.mark.parametrize(
    ("redirection", "message"),
    [("<&-", "standard input is closed"), (">&-", "standard output is closed")],
)
def test_closed_streams_are_reported(redirection: str, message: str, model: Path) -> None:
    command = f"{SENTIMENT} predict --model {model} {redirection}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_full_output_device_is_a_one_line_error(model: Path) -> None:
    command = f"{SENTIMENT} predict --model {model} fine > /dev/full"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert (done.returncode, done.stderr) == (2, "error: standard output: No space left on device\n")


def test_closed_output_pipe_ends_the_command_silently(model: Path) -> None:
    with subprocess.Popen(
        [SENTIMENT, "predict", "--model", str(model)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(b"a\n")
        process.stdin.flush()
        process.stdout.readline()
        process.stdout.close()
        process.stdin.write(b"b\n")
        process.stdin.flush()
        assert process.wait(LIMIT_S) == -signal.SIGPIPE
        assert process.stderr.read() == b""


@pytest.fixture
def open_pipe(model: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The command with a pipe as input that stays open, as after `tail -f`."""
    with subprocess.Popen(
        [SENTIMENT, "predict", "--model", str(model)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_results_are_printed_while_the_input_is_open(open_pipe: subprocess.Popen[bytes]) -> None:
    assert open_pipe.stdin is not None
    assert open_pipe.stdout is not None
    for text in (b"first\n", b"second\n", b"third\nfourth\n"):
        open_pipe.stdin.write(text)
        for line in text.splitlines():
            assert select.select([open_pipe.stdout], [], [], LIMIT_S)[0], "no result while the pipe is open"
            assert open_pipe.stdout.readline().endswith(b"\t" + line + b"\n")


def test_memory_is_bounded_for_a_long_input(open_pipe: subprocess.Popen[bytes]) -> None:
    assert open_pipe.stdin is not None
    assert open_pipe.stdout is not None

    def feed(lines: int) -> int:
        """Return the resident memory in KiB after the results of all lines."""
        for _ in range(lines // 100):
            open_pipe.stdin.write(b"A fine film, and a long one. " * 20 + b"\n" * 1 + b"short\n" * 99)
            for _ in range(100):
                open_pipe.stdout.readline()
        status = Path(f"/proc/{open_pipe.pid}/status")
        if not status.exists():
            pytest.skip("no /proc here")
        return int(status.read_text().partition("VmRSS:")[2].split()[0])

    before = feed(2_000)
    assert feed(20_000) < before + 60_000


def test_terminal_input_prints_a_hint(model: Path) -> None:
    controlling, terminal = pty.openpty()
    with subprocess.Popen(
        [SENTIMENT, "predict", "--model", str(model)],
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        os.close(terminal)
        os.write(controlling, b"fine\n")
        assert process.stdout is not None
        assert process.stdout.readline().endswith(b"\tfine\n")
        os.write(controlling, b"\x04")
        _, stderr = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 0
    os.close(controlling)
    assert b"Ctrl-D" in stderr


def test_thread_settings_are_applied_before_torch_is_imported() -> None:
    code = (
        "import os, sys, sentiment.cli; "
        "assert 'torch' not in sys.modules; print(os.environ['GOMP_SPINCOUNT'])"
    )
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "1000"

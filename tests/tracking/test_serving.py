"""The logged model behind MLflow's own scoring server: probabilities, or one plain sentence."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest

from sentiment.model.classifier import SentimentClassifier
from sentiment.model.model_files import export_model, save_model
from sentiment.params.data import TokenizeParams
from sentiment.tokens.vocabulary import train_tokenizer
from sentiment.tracking import open_store, start_run
from sentiment.tracking.logged_model import log_model
from tests.model.small_model import model_params

START_S = 300.0


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a scoring server with a small model that was logged to a store of its own."""
    root = tmp_path_factory.mktemp("served")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager=local", "--host=127.0.0.1"]
    with (root / "log").open("wb") as log:
        server = subprocess.Popen(
            [*command, f"--port={port}", f"--model-uri={_logged(root)}"],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + START_S
        while not _answers(address):
            assert server.poll() is None, (root / "log").read_text()
            assert time.monotonic() < deadline, "the server never answered"
            time.sleep(0.2)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _logged(root: Path) -> str:
    """Log a small model and return the folder of its artifacts."""
    tokenizer = train_tokenizer(
        ["a fine film", "a waste of time"],
        TokenizeParams(kind="word", vocabulary_size=100, min_frequency=1, lowercase=True, oov_rate=1.0),
    )
    tokenizer.save(str(root / "tokenizer.json"))
    save_model(root / "candidate", SentimentClassifier(model_params(), tokenizer.get_vocab_size()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(root))
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
            patch.delenv(name, raising=False)
        with start_run(open_store(), "evaluate", "served") as run:
            export_model(root / "candidate", root / "exported", root / "tokenizer.json")
            log_model(run, "selected", root / "exported")
    (description,) = (root / "mlruns/artifacts").rglob("MLmodel")
    return str(description.parent)


def _answers(address: str) -> bool:
    try:
        urlopen(f"{address}/ping", timeout=1).close()
    except (OSError, URLError):
        return False
    return True


def _ask(address: str, body: Any, kind: str = "application/json") -> tuple[int, Any]:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = Request(f"{address}/invocations", content, {"Content-Type": kind})
    try:
        with urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        return error.code, json.load(error)


def _split(*rows: Any, column: str = "text") -> dict[str, Any]:
    return {"dataframe_split": {"columns": [column], "data": [[row] for row in rows]}}


TWO = ["a fine film", "a waste of time"]


@pytest.mark.parametrize(
    "body",
    [
        _split(*TWO),
        {"dataframe_records": [{"text": text} for text in TWO]},
        {"inputs": TWO},
        {"inputs": {"text": TWO}},
        {"inputs": [{"text": text} for text in TWO]},
        {"instances": TWO},
        {"instances": [{"text": text} for text in TWO]},
    ],
    ids=json.dumps,
)
def test_every_format_gets_the_same_probabilities(body: Any, served: str) -> None:
    expected = _ask(served, b"text\na fine film\na waste of time\n", "text/csv")
    assert expected[0] == 200
    assert len(expected[1]["predictions"]) == 2
    assert _ask(served, body) == expected


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (_split(None), "must hold text: row 1 holds null"),
        (_split("fine", None), "row 2 holds null"),
        (b'{"dataframe_split": {"columns": ["text"], "data": [[NaN]]}}', "row 1 holds null"),
        (_split(1), "row 1 holds a number"),
        (_split("fine", 1.5), "row 2 holds a number"),
        (_split(True), "row 1 holds a boolean"),
        (_split(["fine"]), "row 1 holds a list"),
        (_split([]), "row 1 holds a list"),
        (_split({"a": 1}), "row 1 holds an object"),
        (_split(), "no row to predict"),
        (_split("fine", column="review"), "column `text` is missing: found review"),
        ({"dataframe_split": {"columns": ["text", "more"], "data": [["a", 1]]}}, "found text, more"),
        ({"dataframe_split": {"columns": ["text", "text"], "data": [["a", "b"]]}}, "found text, text"),
        ({"dataframe_records": []}, "column `text` is missing"),
        ({"dataframe_records": [{"text": "a"}, {}]}, "row 2 holds null"),
        ({"inputs": []}, "no row to predict"),
        ({"inputs": {"text": [None]}}, "row 1 holds null"),
        ({"inputs": ["fine", 2]}, "row 2 holds a number"),
        ({"inputs": 3}, "row 1 holds a number"),
        ({"inputs": [{"text": "a"}, "b"]}, "mixes objects"),
        ({"inputs": {"text": ["a", "b"], "more": [1]}}, "differ in length"),
        ({"inputs": ["\ud800"]}, "an unpaired surrogate"),
        ({"instances": [{"text": None}]}, "row 1 holds null"),
        ({"instances": [1]}, "row 1 holds a number"),
    ],
    ids=str,
)
def test_what_is_not_text_is_refused_in_a_sentence(body: Any, message: str, served: str) -> None:
    status, answer = _ask(served, body)
    assert status == 400
    assert message in answer["message"]
    assert "\n" not in answer["message"]
    assert set(answer) == {"error_code", "message"}


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        (b"", "text/csv", "not a CSV table"),
        (b'text\n"a', "text/csv", "not a CSV table"),
        (b"text\nNA\n", "text/csv", "row 1 holds null"),
        (b"text\nfine\n\ndull\n", "text/csv", "row 2 holds null"),
        (b"text\na dull, boring film\n", "text/csv", "texts with commas must be in quotes"),
        (b"text\nfine\na dull, boring film\n", "text/csv", "not a CSV table"),
        (b"review\nfine\n", "text/csv", "column `text` is missing"),
        (b"nonsense", "application/vnd.apache.parquet", "not a Parquet table"),
    ],
)
def test_tables_that_cannot_be_read_are_refused_without_a_stack_trace(
    body: bytes, kind: str, message: str, served: str
) -> None:
    status, answer = _ask(served, body, kind)
    assert status == 400
    assert message in answer["message"]
    assert set(answer) == {"error_code", "message"}

"""Speed of `sentiment predict` on 5,000 real lines, beside bare forward passes of the same batches.

The command gets one line first; what comes before its result, above all the import of torch, does not depend
on the number of lines and is shown apart. Then it gets 5,000 lines through the same pipe and is timed until
their last result. A process of its own holds the same model and the same batches, ready made, and runs
nothing but `model(batch)`, its memory as torch gets it by default. The two take turns, alone and beside busy
neighbours.
"""

import argparse
import logging
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.bars import Bar, at_least, report_bars
from bench.processes import Resident
from sentiment.data.imdb import load_package_reviews
from sentiment.errors import UserError, exits_cleanly
from sentiment.input_lines import WINDOW_LINES
from sentiment.model.classifier import INFERENCE_BATCH_SIZE, ModelInputs, SentimentClassifier, build_inputs
from sentiment.model.model_config import TOKENIZER_FILE
from sentiment.model.model_files import export_model, save_model
from sentiment.model.ngram_branch import fit_ngram_branch
from sentiment.model.predictor import Predictor
from sentiment.params import load_params
from sentiment.text import normalize_text
from sentiment.tokens.batches import Truncation, iter_sorted_batches
from sentiment.tokens.token_store import TokenizedReviews
from sentiment.tokens.vocabulary import TextEncoder, train_tokenizer

logger = logging.getLogger(__name__)


LINES = 5_000
TURNS = 3
NEIGHBOURS = 2
RATIO_BAR = 0.7
SEED = 0


@dataclass(frozen=True)
class Turn:
    """Seconds of one turn: until the command's first result, for the lines, and of the bare passes."""

    start: float
    scoring: float
    bare: float

    @property
    def ratio(self) -> float:
        return self.bare / self.scoring


class BarePasses:
    """The batches that the command makes of the lines, ready to be scored."""

    def __init__(self, model: Path, lines: Path) -> None:
        predictor = Predictor.load(model)
        self.model = predictor.model
        texts = lines.read_text(encoding="utf-8").split("\n")[:-1]
        self.batches = [
            inputs
            for start in range(0, len(texts), WINDOW_LINES)
            for inputs in _batches(predictor, texts[start : start + WINDOW_LINES])
        ]

    def __call__(self) -> float:
        """Return the seconds that the forward passes take."""
        start = time.perf_counter()
        with torch.inference_mode():
            for inputs in self.batches:
                self.model(*inputs)
        return time.perf_counter() - start


def _batches(predictor: Predictor, texts: list[str]) -> list[ModelInputs]:
    encoded = predictor.encode(texts)
    truncation = Truncation(predictor.model.params.max_tokens, predictor.model.params.truncation)
    batches = iter_sorted_batches(encoded.tokens, truncation, INFERENCE_BATCH_SIZE, encoded.ngrams)
    return [build_inputs(batch, predictor.model.device) for batch in batches]


@exits_cleanly
def main(model: Path | None, turns: int) -> None:
    """Measure, print tables; exit with 1 if a bar is missed."""
    bars: list[Bar] = []
    print(
        "| 5,000 lines | first result after, s | lines/s | bare, lines/s | ratio | ratio including start-up |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory(prefix="bench-predict-") as temporary:
        folder = Path(temporary)
        lines = _write_lines(folder / "lines.txt")
        model = _made(folder) if model is None else model
        if not (model / TOKENIZER_FILE).is_file():
            raise UserError(f"{model}: contains no model with its tokenizer")
        with Resident(BarePasses, model, lines) as bare:
            for where, neighbours in (("alone", 0), (f"beside {NEIGHBOURS} busy neighbours", NEIGHBOURS)):
                with busy(neighbours):
                    bare()  # the one-time set-up of the first pass is not measured
                    taken = [_turn(model, lines, bare) for _ in range(turns)]
                _print_turns(where, taken)
                bars.append(
                    at_least(
                        f"{where}: share of the bare passes' speed", [turn.ratio for turn in taken], RATIO_BAR
                    )
                )
    raise SystemExit(report_bars(bars))


def _turn(model: Path, lines: Path, bare: Resident[[], float]) -> Turn:
    before = bare()
    start, scoring = _command(model, lines)
    return Turn(start, scoring, (before + bare()) / 2)


def _command(model: Path, lines: Path) -> tuple[float, float]:
    """Return the seconds until the command's first result, and from there to the last of all lines."""
    command = [str(Path(sys.executable).with_name("sentiment")), "predict", "--model", str(model)]
    began = time.perf_counter()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"One line, so that the command is ready.\n")
        process.stdin.flush()
        process.stdout.readline()
        first = time.perf_counter()
        with subprocess.Popen(["cat", str(lines)], stdout=process.stdin):
            process.stdin.close()
            printed = sum(1 for _ in process.stdout)
        last = time.perf_counter()
    if process.returncode or printed != LINES:
        raise UserError(f"sentiment predict ended with {process.returncode} after {printed} lines")
    return first - began, last - first


@contextmanager
def busy(neighbours: int) -> Iterator[None]:
    """Keep other processes busy with nothing meanwhile."""
    processes = [multiprocessing.get_context("spawn").Process(target=_spin) for _ in range(neighbours)]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.join()


def _spin() -> None:
    while True:
        pass


def _print_turns(where: str, turns: list[Turn]) -> None:
    start = statistics.median(turn.start for turn in turns)
    scored = statistics.median(LINES / turn.scoring for turn in turns)
    bare = statistics.median(LINES / turn.bare for turn in turns)
    ratio = statistics.median(turn.ratio for turn in turns)
    whole = statistics.median(turn.bare / (turn.start + turn.scoring) for turn in turns)
    print(f"| {where} | {start:.1f} | {scored:,.0f} | {bare:,.0f} | {ratio:.2f} | {whole:.2f} |", flush=True)


def _write_lines(path: Path) -> Path:
    """Write real reviews, a line each, in a random order: the package's has all negative ones first."""
    texts = load_package_reviews()["text"].to_pylist()
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(SEED))[:LINES]
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{normalize_text(texts[row])}\n" for row in order.tolist())
    return path


def _made(folder: Path) -> Path:
    """Write a model of params.yaml's size, untrained: weights do not change its speed. Return its folder."""
    logger.info("building a model of params.yaml's size")
    params, reviews = load_params(), load_package_reviews()
    texts = [normalize_text(text) for text in reviews["text"].to_pylist()]
    tokenizer = train_tokenizer([texts], params.tokenize)
    tokenizer.save(str(folder / TOKENIZER_FILE))
    ngrams = None
    if params.model.ngrams is not None:
        tokens = TokenizedReviews.from_lists(TextEncoder(tokenizer)(texts), reviews["label"].to_numpy())
        ngrams, _ = fit_ngram_branch(tokens, params.model.ngrams)
    classifier = SentimentClassifier(params.model, tokenizer.get_vocab_size(), ngrams)
    save_model(folder / "candidate", classifier)
    export_model(folder / "candidate", folder / "model", folder / TOKENIZER_FILE)
    return folder / "model"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="instead of one made for the measurement: models/selected")
    parser.add_argument("--turns", type=int, default=TURNS)
    arguments = parser.parse_args()
    main(arguments.model, arguments.turns)

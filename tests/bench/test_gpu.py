"""The GPU measurement, run on the CPU, so that it works once a GPU is available."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from bench.gpu import pack, packed
from bench.gpu.configurations import load_configurations
from bench.gpu.context import Bench, read_rows
from bench.gpu.gpu_time import covered
from bench.gpu.packed import Pack
from bench.gpu.run import LEAST, measure_part
from sentiment.data.imdb import load_package_reviews
from sentiment.data.parquet import sample_reviews, to_batches
from sentiment.params.data import TokenizeParams
from sentiment.text import normalize_text
from sentiment.tokens.encoding import encode
from sentiment.tokens.vocabulary import train_tokenizer
from tests.data.archives import imdb_members, write_archive
from tests.project import ROOT

RUN = ROOT / "bench" / "gpu" / "run.sh"
ENVIRONMENT = {**os.environ, "PYTHON": sys.executable}

BARE = {"dvc", "fsspec", "mlflow", "optuna", "pandera", "tenacity", "typer"}
"""Packages of this project that are neither on a GPU machine nor in the pack's wheels."""

needs_no_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real reviews in the archive's layout: 160 in each half, of 16 films, and a hundred unlabelled."""
    table = pa.Table.from_batches(sample_reviews(lambda: to_batches(load_package_reviews()), 420, seed=42))
    texts = [normalize_text(text) for text in table["text"].to_pylist()]
    rows = pa.table({"text": texts, "label": table["label"]})
    labelled = np.r_[0:160, 210:370]
    members = imdb_members(rows.take(labelled))
    rest = [*texts[160:210], *texts[370:420]]
    members = {name: text for name, text in members.items() if "/unsup/" not in name}
    members |= {f"aclImdb/train/unsup/{number}_0.txt": text.encode() for number, text in enumerate(rest)}
    return write_archive(tmp_path_factory.mktemp("archive") / "reviews.tar.gz", members)


@pytest.fixture(scope="module")
def folder(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack, as bench/gpu/pack.sh writes it, without wheels."""
    folder = tmp_path_factory.mktemp("gpu") / "pack"
    command = [ROOT / "bench" / "gpu" / "pack.sh", "--no-wheels", "--folder", folder]
    subprocess.run(command, env={**ENVIRONMENT, "ARCHIVE": str(archive)}, check=True)
    return folder


@pytest.fixture
def bench(folder: Path, tmp_path: Path) -> Bench:
    opened = Pack.open(folder, smoke=True)
    return Bench(opened, "cpu", tmp_path, tmp_path / "rows.jsonl", time.monotonic() + 60)


@pytest.mark.integration
@pytest.mark.timeout(900)
def test_smoke_run_measures_every_part(folder: Path, tmp_path: Path) -> None:
    """Beside the other tests it may take longer than its three minutes."""
    command = [RUN, "--smoke", "--pack", folder, "--seconds", "600"]
    done = subprocess.run(
        command, env={**ENVIRONMENT, "OUT": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads((tmp_path / "gpu.json").read_bytes())
    assert list(content["parts"]) == list(LEAST)
    rows = {row["metric"]: row for part in content["parts"].values() for row in part["rows"]}
    assert all(f"| {metric} | {row['value']} |" in done.stdout for metric, row in rows.items())
    verdicts = {metric: row["holds"] for metric, row in rows.items() if row["holds"] is not None}
    assert verdicts == dict.fromkeys(
        [
            "two trainings from one seed, bits",
            "SIGKILL and resume against uninterrupted",
            "each kind of clipping runs",
            "other settings run",
        ],
        True,
    )
    assert rows["test AUC of what validation chose"]["bar"] == "≥ 0.985"
    assert sum("self-training" in metric for metric in rows) == 2
    assert {row["metric"].split(",")[0] for row in content["parts"]["predict"]["rows"]} == {"predict"}


@pytest.mark.slow
@needs_no_cuda
def test_missing_cuda_is_reported(folder: Path) -> None:
    command = [RUN, "--pack", folder]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: torch finds no CUDA device here")


@pytest.mark.slow
def test_missing_pack_is_reported_with_the_command_that_writes_it(tmp_path: Path) -> None:
    command = [RUN, "--smoke", "--pack", tmp_path / "nowhere"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "bench/gpu/pack.sh writes it" in done.stderr


@pytest.mark.slow
def test_failed_part_is_a_row(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "pack"
    broken.mkdir()
    for file in folder.iterdir():
        (broken / file.name).write_bytes(b"" if file.name == packed.TEXTS else file.read_bytes())
    measured = measure_part("predict", broken, tmp_path, 60, smoke=True)
    assert [(bar.metric, bar.holds) for bar in measured.bars] == [("part predict", False)]
    assert "Traceback" in measured.notes["failed: part predict"]


@pytest.mark.slow
def test_part_above_its_time_limit_is_stopped(folder: Path, tmp_path: Path) -> None:
    measured = measure_part("equality", folder, tmp_path, 1.5, smoke=True)
    assert measured.bars[-1].value == "stopped after 2 s"
    assert measured.seconds < 10


@pytest.mark.slow
def test_rows_before_a_kill_survive(bench: Bench) -> None:
    bench.row("speed", "1", "≥ 0", holds=True)
    bench.note("detail", [1, 2])
    with bench.rows.open("a") as file:
        file.write('{"row": {"metric": "cut sho')
    bars, notes = read_rows(bench.rows)
    assert [bar.metric for bar in bars] == ["speed"]
    assert notes == {"detail": [1, 2]}


@pytest.mark.slow
def test_bars_for_a_gpu_are_not_evaluated_on_the_cpu(bench: Bench) -> None:
    bench.gpu_row("speed", "0.1", "≥ 0.8", holds=False)
    assert [bar.holds for bar in read_rows(bench.rows)[0]] == [None]


@pytest.mark.slow
def test_every_configuration_is_valid(folder: Path) -> None:
    opened, file = Pack.open(folder, smoke=False), load_configurations()
    for configuration in [file.speed, *file.labelled]:
        for student in file.students:
            model, train = opened.configuration(configuration.changes, student.changes, device="cuda")
            assert train.device == "cuda"
            assert model.hidden_units == configuration.changes.get("model.hidden_units", 128)


def test_packed_arrays_are_those_of_the_stages(reviews: pa.Table, tmp_path: Path) -> None:
    params = TokenizeParams(kind="word", vocabulary_size=500, min_frequency=1, lowercase=True, oov_rate=1.0)
    tokens = encode(train_tokenizer(reviews["text"].to_pylist(), params), reviews)
    packed.write_arrays(tmp_path, {"test": tokens}, 500)
    assert Pack(tmp_path, {}, 500, smoke=False).read_test().digest == tokens.digest


def test_pack_above_the_size_limit_is_not_written(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(pack, "LARGEST_MB", 0.01)
    with pytest.raises(SystemExit) as ended:
        pack.main(archive, None, wheels=False, folder=tmp_path / "pack")
    assert ended.value.code == 2
    assert "but at most 0.01 travel" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_measurement_imports_only_packages_of_the_gpu_machine() -> None:
    code = f"import sys, bench.gpu.run, bench.gpu.part; print(sorted({BARE} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("spans", "length"), [([], 0), ([(1, 3)], 2), ([(5, 6), (1, 3), (2, 4), (2, 3)], 4)], ids=str
)
def test_overlapping_kernels_count_once(spans: list[tuple[float, float]], length: float) -> None:
    assert covered(spans) == length

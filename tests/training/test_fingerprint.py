"""Numerics in the fingerprint: a checkpoint of another instruction set is not resumed."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from sentiment.training.fingerprint import (
    ONEDNN_LEVELS,
    TrainingFingerprint,
    detect_instruction_sets,
    detect_onednn_isa,
)
from tests.project import ROOT

X86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="instruction sets of x86 processors")

TRAIN = """
import sys
from pathlib import Path
from sentiment.params.train import TrainParams
from sentiment.tokens.batches import TrainingData
from sentiment.tokens.token_store import TokenizedReviews
from sentiment.training.checkpoint import open_checkpoint
from sentiment.training.fingerprint import compute_fingerprint
from sentiment.training.loop import fit
from tests.model.small_model import model_params
from tests.training.test_loop import TRAIN, VOCABULARY

split = TokenizedReviews.from_lists([[2 + row % 7, 3, 4 + row % 3] for row in range(40)], [0, 1] * 20)
reviews = TrainingData(VOCABULARY, split, split)
params = TrainParams.model_validate({**TRAIN, "epochs": 2, "device": "cpu", "precision": "fp32"})

def stop(epoch):
    if sys.argv[2] == "stop" and epoch.epoch == 2:
        raise KeyboardInterrupt

fingerprint = compute_fingerprint(model_params(), params, reviews)
with open_checkpoint(Path(sys.argv[1]), fingerprint, 0) as checkpoint:
    print("epochs found:", len(checkpoint.epochs))
    fit(model_params(), params, reviews, on_epoch=stop, checkpoint=checkpoint)
"""


def _train(folder: Path, how: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", TRAIN, str(folder), how],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@X86
@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [("ATEN_CPU_CAPABILITY", "default", "aten_capability"), ("ONEDNN_MAX_CPU_ISA", "SSE41", "onednn_isa")],
)
def test_checkpoint_of_another_instruction_set_is_not_resumed(
    tmp_path: Path, variable: str, value: str, named: str
) -> None:
    assert "KeyboardInterrupt" in _train(tmp_path, "stop").stderr
    other = _train(tmp_path, "stop", **{variable: value})
    assert other.stdout == "epochs found: 0\n"
    line = other.stderr.splitlines()[0]
    assert line.startswith("the checkpoint of ")
    assert f"is incompatible, training starts from the beginning: {named} was " in line
    assert line.endswith(f"is {value.upper()}")

    resumed = _train(tmp_path, "end")
    assert resumed.stdout == "epochs found: 2\n"
    assert "incompatible" not in resumed.stderr
    assert resumed.returncode == 0


def test_difference_includes_names_that_only_one_run_has() -> None:
    fingerprint = TrainingFingerprint("inputs", {"threads": "2", "device": "cpu"})
    assert fingerprint.describe_differences({"threads": "1", "device": "cpu"}) == ["threads was 1, is 2"]
    assert fingerprint.describe_differences({"threads": "2"}) == ["device was not set, is cpu"]


ISA = """
import torch
from sentiment.training.fingerprint import detect_onednn_isa
print("isa", detect_onednn_isa(), flush=True)
torch.nn.functional.linear(torch.ones(2, 8, 64), torch.ones(64, 64))
torch.nn.LSTM(8, 8)(torch.ones(2, 2, 8))
"""


def _detect_with_onednn(limit: str) -> tuple[str, str]:
    """Return the instruction set that oneDNN prints, and the one that `detect_onednn_isa` returns."""
    environment = {**os.environ, "ONEDNN_VERBOSE": "1", "ONEDNN_MAX_CPU_ISA": limit}
    done = subprocess.run(
        [sys.executable, "-c", ISA], env=environment, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    (ours,) = [line.split()[1] for line in done if line.startswith("isa ")]
    (theirs,) = [line.partition(",isa:")[2] for line in done if ",isa:" in line]
    return theirs, ours


@pytest.mark.slow
@X86
def test_detected_instruction_set_matches_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The detected set changes with a limit if and only if the set that oneDNN prints does."""
    pairs = [_detect_with_onednn(limit) for limit in ("SSE41", "avx2", "AVX512_CORE", "DEFAULT", "nonsense")]
    for theirs, ours in pairs:
        for theirs_again, ours_again in pairs:
            assert (theirs == theirs_again) == (ours == ours_again), pairs
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    assert detect_onednn_isa() == pairs[-1][1]
    assert detect_onednn_isa() in {name for name, _ in ONEDNN_LEVELS}


def test_mkl_limits_are_among_the_instruction_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    before = detect_instruction_sets()
    monkeypatch.setenv("MKL_CBWR", "AVX2")
    assert detect_instruction_sets() == before | {"mkl_cbwr": "AVX2"}

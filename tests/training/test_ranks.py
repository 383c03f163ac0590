"""Several ranks train what one process trains, whatever is clipped and dropped, and also if one is killed."""

import os
from itertools import combinations_with_replacement, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors.torch import load_file
from torch._C._distributed_c10d import TCPStore

from sentiment.errors import UserError
from sentiment.params.train import TrainParams
from sentiment.training.launch import are_ranks_missing, open_process_group, start_ranks
from sentiment.training.ranks import SINGLE, Ranks, split_evenly
from tests.training.rank_cases import CASES, EQUAL, FOLDER, KILLED_STEP, RANKS, fit, fit_in_float64
from tests.training.test_loop import TRAIN

MODULE = "tests.training.rank_cases"


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="only Linux has SCHED_BATCH")
def test_threads_of_gloo_preempt_no_other_thread() -> None:
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    params = TrainParams.model_validate(TRAIN)
    before = set(Path("/proc/self/task").iterdir())
    with open_process_group(params, Ranks(), 0, store):
        started = set(Path("/proc/self/task").iterdir()) - before
        assert {os.sched_getscheduler(int(task.name)) for task in started} == {os.SCHED_BATCH}
        assert os.sched_getscheduler(0) == os.SCHED_OTHER


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with what two ranks have trained."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FOLDER, str(folder))
        patch.setenv(CASES, " ".join([*EQUAL, "nan", "uninterrupted"]))
        start_ranks(MODULE, RANKS)
    return folder


@pytest.mark.parametrize("name", EQUAL)
def test_two_ranks_train_what_one_process_trains(name: str, trained: Path) -> None:
    single = fit_in_float64(SINGLE, name)
    together = load_file(trained / f"{name}.safetensors")
    assert together["embedding.weight"].dtype == torch.float64
    for parameter, weight in single.model.state_dict().items():
        torch.testing.assert_close(together[parameter], weight, rtol=0, atol=1e-10, msg=parameter)
    assert float((trained / f"{name}.json").read_text()) == single.best.validation_auc
    if not name.startswith("self"):
        assert all(epoch.clipping_rate > 0 for epoch in single.epochs), "the case needs clipped gradients"


def test_gradient_that_is_not_finite_on_one_rank_stops_all(trained: Path) -> None:
    errors = {(trained / f"error-{rank}.txt").read_text() for rank in range(RANKS)}
    assert len(errors) == 1
    assert (
        "epoch 1, step 1 of 10: the gradient of head is not finite; the optimizer step was not"
        in errors.pop()
    )


def test_training_resumes_with_the_same_result_after_a_rank_was_killed(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    monkeypatch.setenv(CASES, "killed")
    start_ranks(MODULE, RANKS)
    assert (tmp_path / "killed").exists(), f"no rank reached step {KILLED_STEP}"
    assert "killed: rank 1 (SIGKILL); all ranks end, to start again from the last checkpoint" in caplog.text
    killed, uninterrupted = (tmp_path / "killed.safetensors", trained / "uninterrupted.safetensors")
    assert killed.read_bytes() == uninterrupted.read_bytes()


@pytest.mark.parametrize(("statuses", "expected"), [("1 2", 2), ("3 1", 3), ("1 1", 1)])
def test_status_of_a_failed_rank_is_that_of_the_training(
    statuses: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATUSES", statuses)
    with pytest.raises(SystemExit) as raised:
        start_ranks("tests.training.exit_with_status", RANKS)
    assert raised.value.code == expected


@pytest.mark.parametrize(("ranks", "started"), [(2, 3), (1, 2)])
def test_other_number_of_processes_of_torchrun_is_an_error(
    ranks: int, started: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", str(started))
    with pytest.raises(UserError, match=f"train.ranks is {ranks}, but torchrun started {started} processes"):
        are_ranks_missing(TrainParams.model_validate({**TRAIN, "ranks": ranks}))


def test_ranks_are_started_unless_torchrun_has_started_them(monkeypatch: pytest.MonkeyPatch) -> None:
    params = TrainParams.model_validate({**TRAIN, "ranks": 2})
    assert are_ranks_missing(params)
    assert not are_ranks_missing(TrainParams.model_validate(TRAIN))
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="RANK is set, but not MASTER_ADDR and MASTER_PORT"):
        are_ranks_missing(params)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "29500")
    assert not are_ranks_missing(params)


def test_more_ranks_than_reviews_in_a_batch_are_invalid() -> None:
    with pytest.raises(ValidationError, match=r"ranks \(17\) must not be greater than batch_size \(16\)"):
        TrainParams.model_validate({**TRAIN, "ranks": 17})


def test_training_without_its_ranks_does_not_start() -> None:
    with pytest.raises(ValueError, match=r"1 ranks train, but train.ranks is 2"):
        fit(SINGLE, {}, {"ranks": 2})


def _count_padded(lengths: NDArray[np.int64], chunk_tokens: int | None) -> int:
    counts = [1 if chunk_tokens is None else -(-int(length) // chunk_tokens) for length in lengths]
    longest = max(
        (-(-int(length) // count) for length, count in zip(lengths, counts, strict=True)), default=0
    )
    return longest * sum(counts)


@pytest.mark.parametrize("chunk_tokens", [None, 16])
@pytest.mark.parametrize("ranks", [2, 3])
def test_largest_part_of_a_batch_is_as_small_as_possible(chunk_tokens: int | None, ranks: int) -> None:
    rng = np.random.default_rng(0)
    for reviews in (1, 2, 5, 12):
        lengths = np.sort(rng.integers(1, 60, reviews))

        def measure(bounds: tuple[int, ...], lengths: NDArray[np.int64] = lengths) -> int:
            return max(_count_padded(lengths[start:stop], chunk_tokens) for start, stop in pairwise(bounds))

        inner = combinations_with_replacement(range(reviews + 1), ranks - 1)
        best = min(measure((0, *bounds, reviews)) for bounds in inner)
        found = split_evenly(lengths, chunk_tokens, ranks)
        assert (len(found), found[0], found[-1]) == (ranks + 1, 0, reviews)
        assert measure(tuple(found)) == best

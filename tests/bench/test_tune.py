"""The parts of bench.tune whose errors could report a pass that is wrong."""

import sys
from collections import Counter
from datetime import datetime, timedelta

import pytest
from optuna.trial import TrialState

from bench.tuning.default import OLD_PROCESSOR, compute_durations, compute_end, find_instruction_set
from bench.tuning.equality import CHANGES, TRIALS, FinalState, compare_results, trials_bar
from bench.tuning.winner import MODEL_BEFORE, TRAIN_BEFORE
from bench.tuning.workers import ONE, ONE_WITH_TWO_THREADS, TWO, compute_speedups, measure_trials
from sentiment.params.model import ModelParams
from sentiment.params.train import TrainParams

ENDED = FinalState(
    Counter({TrialState.COMPLETE: 4, TrialState.PRUNED: TRIALS - 4}),
    Counter({"FINISHED": 4, "KILLED": TRIALS - 4}),
    0,
    Counter({"FINISHED": 1}),
)


def test_changed_missing_and_additional_files_differ() -> None:
    expected = {"same": b"1", "changed": b"2", "missing": b"3"}
    bar = compare_results("search", expected, {"same": b"1", "changed": b"0", "additional": b"4"})
    assert (bar.value, bar.holds) == ("3 of 4", False)
    assert compare_results("search", expected, expected).holds
    assert not compare_results("search without results", {}, {}).holds


def test_each_trial_must_have_ended_once() -> None:
    assert trials_bar("search", ENDED).holds
    statuses = Counter({"FINISHED": 4, "KILLED": TRIALS - 4})
    lost = Counter({TrialState.COMPLETE: 4, TrialState.PRUNED: TRIALS - 5})
    for left in (
        FinalState(lost, statuses, 0, ENDED.parents),
        FinalState(lost + Counter({TrialState.RUNNING: 1}), statuses, 0, ENDED.parents),
        FinalState(ENDED.states, statuses, 1, ENDED.parents),
        FinalState(ENDED.states, statuses + Counter({"RUNNING": 1}), 0, ENDED.parents),
        FinalState(ENDED.states, statuses, 0, Counter({"FINISHED": 2})),
    ):
        assert not trials_bar("search", left).holds


def test_search_of_the_comparison_has_a_conditional_parameter_and_no_parameter_of_the_data() -> None:
    assert {"train.clip.kind", "train.clip.threshold"} <= CHANGES["tune.space"].keys()
    assert not any(name.startswith(("download", "tokenize")) for name in CHANGES)


def test_two_workers_are_compared_with_the_faster_setting_of_each_round() -> None:
    seconds = {ONE: [10.0, 30.0], ONE_WITH_TWO_THREADS: [20.0, 12.0], TWO: [5.0, 10.0]}
    assert compute_speedups(seconds) == [2.0, 1.2]
    assert compute_speedups({ONE: [10.0], TWO: [5.0]}) == [2.0]


def test_time_of_overlapping_trials_is_counted_once() -> None:
    start = datetime(2026, 11, 26)
    times = [
        (start + timedelta(seconds=first), start + timedelta(seconds=last))
        for first, last in ((0, 9), (1, 5))
    ]
    assert measure_trials([*times]) == 9


def test_earlier_parameters_are_valid() -> None:
    assert ModelParams.model_validate(MODEL_BEFORE).max_tokens == 400
    assert TrainParams.model_validate(TRAIN_BEFORE).epochs == 3


def test_stages_last_until_the_next_one_starts() -> None:
    starts = {"download": 1.0, "tokenize": 3.0, "train": 7.0}
    assert compute_durations(starts, 17.0) == {"download": 2.0, "tokenize": 4.0, "train": 10.0}
    assert compute_end("tokenize", starts, 17.0) == 7.0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="oneDNN is not used")
def test_instruction_set_is_limited() -> None:
    assert find_instruction_set(OLD_PROCESSOR) == "torch: AVX2, oneDNN: Intel AVX2"

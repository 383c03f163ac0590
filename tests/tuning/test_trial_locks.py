"""Each trial is run by exactly one worker, and a trial whose worker died is run again."""

import importlib.metadata
import multiprocessing
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from sentiment.errors import UserError
from sentiment.params import Params, load_params
from sentiment.params.search_space import replace_values
from sentiment.settings import Settings
from sentiment.tokens.batches import TrainingData
from sentiment.tokens.token_store import TokenizedReviews
from sentiment.tuning.active_trial import ActiveTrial, acquire_trial, trial_lock
from sentiment.tuning.study import Search, compute_study_name, open_search
from tests.project import ROOT

RATE = "train.optimizer.learning_rate"
SPACE = {RATE: {"kind": "float", "low": 1e-4, "high": 1e-1, "log": True}}
SPLIT = TokenizedReviews.from_lists([[2, 3], [4, 5]], [0, 1])
REVIEWS = TrainingData(10, SPLIT, SPLIT)


def _params(**changes: Any) -> Params:
    content = load_params(ROOT / "params.yaml").model_dump()
    content["tune"] |= {"trials": 3, "max_failed": 2, "max_parallel": 3, "space": SPACE, **changes}
    content["train"]["device"] = "cpu"
    return Params.model_validate(content)


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty repository root."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    return tmp_path


@pytest.fixture
def search() -> Search:
    return open_search(_params(), REVIEWS)


def _number(trial: ActiveTrial | None) -> int | None:
    return None if trial is None else trial.number


def test_first_trial_is_the_configuration_and_the_total_is_not_exceeded(search: Search) -> None:
    with ExitStack() as stack:
        trials = [stack.enter_context(acquire_trial(search)) for _ in range(4)]
        assert [_number(trial) for trial in trials] == [0, 1, 2, None]
    assert search.load_trials()[0].params == {RATE: search.params.train.optimizer.learning_rate}


def test_trial_waits_for_the_results_that_it_is_drawn_from() -> None:
    search = open_search(_params(max_parallel=2), REVIEWS)
    with acquire_trial(search) as first, acquire_trial(search) as second:
        assert [_number(first), _number(second)] == [0, 1]
        with acquire_trial(search) as none:
            assert none is None
        assert second is not None
        second.record_outcome(TrialState.COMPLETE, 0.5)
        with acquire_trial(search) as none:
            assert none is None, "trial 2 is drawn from the result of trial 0"
        assert first is not None
        first.record_outcome(TrialState.COMPLETE, 0.5)
        with acquire_trial(search) as third:
            assert _number(third) == 2


def test_trial_without_a_worker_resumes_with_its_number_and_values(search: Search) -> None:
    with acquire_trial(search) as first, acquire_trial(search) as second:
        assert first is not None
        assert second is not None
        drawn = second.load().params
        first.record_outcome(TrialState.COMPLETE, 0.5)
    with acquire_trial(search) as again:
        assert again is not None
        assert again.number == 1
        assert again.load().params == drawn
    assert [trial.state for trial in search.load_trials()] == [TrialState.COMPLETE, TrialState.RUNNING]


def test_trial_makes_way_for_one_whose_worker_died() -> None:
    """Its pruning decision needs the report of a trial that no process runs."""
    pruner = {"kind": "median", "startup_trials": 1, "warmup": 0.0}
    search = open_search(_params(pruner=pruner), REVIEWS)
    with acquire_trial(search) as second:  # takes number 0, which a killed worker leaves behind
        assert _number(second) == 0
    with acquire_trial(search) as first, acquire_trial(search) as second:
        assert first is not None
        assert second is not None
        second.report(4, 0.7)
        assert second.decide_pruning() is None
        assert second.find_missing_reports() == ([0], False)
    with trial_lock(search, 1):
        assert second.find_missing_reports() == ([0], True)


def test_ended_trial_is_not_acquired(search: Search) -> None:
    for number in range(3):
        with acquire_trial(search) as trial:
            assert trial is not None
            assert trial.number == number
            trial.record_outcome(TrialState.COMPLETE, 0.5)
    with acquire_trial(search) as none:
        assert none is None
    assert search.is_finished()


def test_no_trial_is_acquired_after_too_many_failures(search: Search) -> None:
    for _ in range(2):
        with acquire_trial(search) as trial:
            assert trial is not None
            trial.set_user_attrs({"error": f"error of {trial.number}"})
            trial.record_outcome(TrialState.FAIL)
    with acquire_trial(search) as none:
        assert none is None
    assert search.is_finished()
    with pytest.raises(UserError, match=r"(?s)trial 0: error of 0.*trial 1: error of 1"):
        search.load_results()


def test_trial_that_another_program_enqueued_is_refused(search: Search) -> None:
    search.load_study().enqueue_trial({RATE: 0.05})
    with (
        pytest.raises(UserError, match="another program enqueued trial 0, but a search must be reproducible"),
        acquire_trial(search),
    ):
        pass
    assert [trial.state for trial in search.load_trials()] == [TrialState.WAITING]


def _acquire_all(root: str, numbers: "multiprocessing.queues.Queue[int]") -> None:
    search = open_search(_params(trials=20), REVIEWS)
    while not search.is_finished():
        with acquire_trial(search) as trial:
            if trial is not None:
                numbers.put(trial.number)
                trial.record_outcome(TrialState.COMPLETE, 0.5)


@pytest.mark.slow
def test_concurrent_processes_run_each_trial_once(root: Path) -> None:
    context = multiprocessing.get_context("spawn")
    numbers = context.Queue()
    processes = [context.Process(target=_acquire_all, args=(str(root), numbers)) for _ in range(3)]
    for process in processes:
        process.start()
    acquired = sorted(numbers.get(timeout=120) for _ in range(20))
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert acquired == list(range(20))
    assert len(open_search(_params(trials=20), REVIEWS).load_study().trials) == 20


def test_checkpoints_belong_to_one_study(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another study of the same search lacks the evaluations before them."""
    first = open_search(_params(), REVIEWS)
    assert open_search(_params(trials=9), REVIEWS).checkpoint_folder(0) == first.checkpoint_folder(0)
    monkeypatch.setenv("TUNE_STORAGE", f"sqlite:///{root}/other.db")
    second = open_search(_params(), REVIEWS)
    assert second.name == first.name
    assert second.checkpoint_folder(0) != first.checkpoint_folder(0)


def test_study_name_depends_on_what_is_searched(tmp_path: Path) -> None:
    name = compute_study_name(_params(), REVIEWS)
    assert compute_study_name(_params(trials=9, max_failed=9), REVIEWS) == name
    with_ranks = replace_values(_params(), {"train.ranks": 2, "train.threads": 2})
    assert compute_study_name(with_ranks, REVIEWS) == name, "trials train in one process with tune.threads"
    other_data = TrainingData(10, TokenizedReviews.from_lists([[2], [4, 5]], [0, 1]), SPLIT)
    others = [
        compute_study_name(_params(seed=1), REVIEWS),
        compute_study_name(_params(max_parallel=2), REVIEWS),
        compute_study_name(_params(threads=2), REVIEWS),
        compute_study_name(_params(space={"model.layers": {"kind": "int", "low": 1, "high": 2}}), REVIEWS),
        compute_study_name(_params(), other_data),
        compute_study_name(_params(), TrainingData(11, SPLIT, SPLIT)),
        compute_study_name(_params(), REVIEWS, _changed_package(tmp_path)),
    ]
    assert len({name, *others}) == 8


@pytest.mark.parametrize("package", ["optuna", "scikit-learn", "scipy"])
def test_another_version_of_what_draws_and_measures_trials_is_another_study(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, installed = compute_study_name(_params(), REVIEWS), importlib.metadata.version
    monkeypatch.setattr(
        "importlib.metadata.version", lambda other: "0.1" if other == package else installed(other)
    )
    assert compute_study_name(_params(), REVIEWS) != name


def _changed_package(folder: Path) -> Path:
    source = ROOT / "src/sentiment"
    for path in source.rglob("*.py"):
        (folder / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
        (folder / path.relative_to(source)).write_bytes(path.read_bytes())
    with (folder / "tuning/trial_params.py").open("a") as file:
        file.write("# another word\n")
    return folder


def test_incomplete_study_is_completed(search: Search) -> None:
    """As after a kill between the creation of the study and of its attributes."""
    begun = open_search(_params(seed=2), REVIEWS)
    storage = begun.storage
    storage.delete_study(storage.get_study_id_from_name(begun.name))
    optuna.create_study(study_name=begun.name, storage=storage, direction="maximize")
    whole = open_search(_params(seed=2), REVIEWS).load_study()
    assert {"optuna_version", "study_id", "starting_values"} <= set(whole.user_attrs)

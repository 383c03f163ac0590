"""Tables behind the plots of a search."""

import os
import subprocess
import sys
from pathlib import Path

import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState
from ruamel.yaml import YAML

from sentiment.params.search_space import replace_values
from sentiment.tuning.report_tables import (
    MIN_FINISHED_TRIALS,
    build_clipping_table,
    build_importance_table,
    build_intermediate_table,
    build_parallel_table,
    write_tables,
)
from tests.project import ROOT, Project
from tests.tuning.studies import searched, searched_params

TEMPLATES = ROOT / ".dvc" / "plots"


@pytest.fixture(scope="module")
def study() -> optuna.Study:
    return searched()


def test_only_relevant_parameter_is_the_most_important() -> None:
    table = build_importance_table(searched(30))
    assert table["parameter"][0] == "train.optimizer.learning_rate"
    assert table["importance"].sum() == pytest.approx(1)
    assert "train.clip.threshold" in set(table["parameter"])  # which not every trial has


def test_importance_with_too_few_finished_trials_is_an_empty_table_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    few = searched(3)
    assert sum(trial.state == TrialState.COMPLETE for trial in few.trials) < MIN_FINISHED_TRIALS
    write_tables(tmp_path, few, searched_params())
    assert (tmp_path / "tune/importance.csv").read_text() == "parameter,importance\n"
    assert "hyperparameter importance: not computed, fewer than 6 trials finished" in caplog.text


def test_intermediate_table_ends_where_a_trial_was_pruned(study: optuna.Study) -> None:
    table = build_intermediate_table(study)
    assert len(table) == sum(len(trial.intermediate_values) for trial in study.trials)
    last = table.groupby("trial")["evaluation_index"].max()
    states = table.groupby("trial")["state"].first()
    assert (last[states == "finished"] == 3).all()
    assert (last[states == "pruned"] < 3).all()
    assert "pruned" in set(states)


def test_clipping_of_each_trial_is_what_it_trained_with(study: optuna.Study) -> None:
    table = build_clipping_table(study, searched_params()).set_index("trial")
    assert {"none", "norm"} <= set(table["kind"])
    for number, row in table.iterrows():
        clip = replace_values(searched_params(), study.trials[number].params).train.clip
        assert row["kind"] == clip.kind
        expected = {"none": None, "norm": "threshold", "percentile": "percentile"}[clip.kind]
        assert pd.isna(row["setting"]) if expected is None else row["setting"] == getattr(clip, expected)


def test_clipping_that_was_not_searched_is_that_of_params() -> None:
    space = {"train.optimizer.learning_rate": {"kind": "float", "low": 1e-4, "high": 1e-1, "log": True}}
    table = build_clipping_table(searched(3, space=space), searched_params(space))
    assert set(zip(table["kind"], table["setting"], strict=True)) == {("norm", 0.5)}


def test_place_on_an_axis_is_between_low_and_high_on_its_own_scale(study: optuna.Study) -> None:
    table = build_parallel_table(study).set_index(["trial", "parameter"])
    assert table["place"].between(0, 1).all()
    rate = table.loc[(0, "train.optimizer.learning_rate")]  # 5e-3 between 1e-4 and 1e-1, by its logarithm
    assert rate["place"] == pytest.approx(0.5663, abs=1e-4)
    assert (rate["low"], rate["high"]) == ("0.0001", "0.1")
    assert table.loc[(0, "train.clip.kind")]["place"] == 0.5  # the second of three choices
    assert table.loc[(0, "model.layers")]["place"] == 0
    assert (0, "train.clip.percentile") not in table.index


@pytest.mark.slow
def test_tables_are_equal_byte_for_byte_from_process_to_process(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from sentiment.tuning.report_tables import write_tables;"
        "from tests.tuning.studies import searched, searched_params;"
        "write_tables(Path(sys.argv[1]), searched(), searched_params())"
    )
    for folder, seed in (("one", "1"), ("other", "2")):  # the order of sets changes with the seed of hashes
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", code, tmp_path / folder], cwd=ROOT, env=environment, check=True)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.csv"))
    assert [str(path) for path in files] == [
        "tune/clipping.csv",
        "tune/importance.csv",
        "tune/intermediate.csv",
        "tune/parallel.csv",
        "tune.csv",
    ]
    for path in files:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "other" / path).read_bytes(), path


@pytest.mark.slow
def test_dvc_draws_every_table(tmp_path: Path) -> None:
    """With rows in each table, which the search of three trials in other tests does not give."""
    project = Project(tmp_path)
    for name in ("dvc.yaml", ".dvc/config", *(f".dvc/plots/{path.name}" for path in TEMPLATES.iterdir())):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    project.run("git", "init", "-q")
    write_tables(tmp_path / "reports", searched(30), searched_params())
    project.run("dvc", "plots", "show", "-o", "page")
    page = (tmp_path / "page/index.html").read_text()
    plots = YAML(typ="safe").load(ROOT / "dvc.yaml")["plots"]
    drawn = [title for plot in plots for title, of in plot.items() if "reports/tune" in str(of["y"])]
    assert len(drawn) == 5
    assert all(f'"text": "{title}"' in page for title in drawn)
    assert "DVC_METRIC" not in page


def test_small_numbers_are_not_rounded_to_zero(tmp_path: Path) -> None:
    space = {"train.optimizer.learning_rate": {"kind": "float", "low": 1e-9, "high": 2e-9}}
    write_tables(tmp_path, searched(2, space=space), searched_params(space))
    rates = pd.read_csv(tmp_path / "tune.csv")["train.optimizer.learning_rate"]
    assert (rates > 0).all()

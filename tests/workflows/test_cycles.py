"""Whole cycles of scheduled retraining on a forge, with real git, DVC, MLflow and training."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML

from sentiment.data.imdb import find_package_file
from tests.workflows.actions import link_environment
from tests.workflows.conftest import ALARMS, BATCH, Rows, Site, push_batch, read_report, write_batch

pytestmark = pytest.mark.timeout(1800)  # the first test also makes the first champion

REVISION_OF_MLFLOW_3_16 = "b7e2c1a4d9f3"
"""Revision of the schema in a database that MLflow 3.16.0 created."""

RUNS = "SELECT run_uuid FROM runs ORDER BY 1"
TAGS = "SELECT run_uuid, key, value FROM tags ORDER BY 1, 2"


def _flip(rows: Rows, every: int = 1) -> Rows:
    """Return rows of which every n-th has the other label."""
    return [(text, label if number % every else 1 - label) for number, (text, label) in enumerate(rows)]


def test_first_champion(site: Site) -> None:
    site.retrained.require(train="success", record="success", propose="success", alarm="skipped")
    outcome, reason = read_report(site.retrained)
    assert outcome == "promote"
    (pull,) = site.forge.state["pr"]
    assert pull["state"] == "merged"
    assert reason in pull["body"]
    (promoted,) = site.merged
    promoted.require(verify="success", assign="success")
    assert site.champion == site.forge.git("rev-parse", "main")
    assert site.versions == ["sentiment@v1.0.0"]
    assert [entry["outcome"] for entry in site.ledger] == ["promote"]
    assert site.forge.state["issue"] == []
    assert site.forge.git("rev-list", "--count", "models") == "1"


def test_nothing_new(site: Site) -> None:
    champion, ledger, models = site.champion, site.ledger, site.forge.git("rev-parse", "models")
    run = site.retrain().require(
        train="success", record="skipped", propose="skipped", alarm="skipped", keep="skipped"
    )
    assert read_report(run)[0] == "nothing_new"
    assert "Running stage 'train'" not in run.log
    assert (site.champion, site.ledger, site.forge.git("rev-parse", "models")) == (champion, ledger, models)
    assert (len(site.forge.state["pr"]), site.forge.state["issue"]) == (1, [])


def test_second_schedule_only_keeps_the_caches(site: Site) -> None:
    run = site.retrain(event="schedule", schedule="23 4 * * 4")
    assert run.results == {
        "train": "skipped",
        "record": "skipped",
        "propose": "skipped",
        "alarm": "skipped",
        "keep": "success",
    }


def test_good_batch_is_proposed_and_promoted_by_its_merge(site: Site, tmp_path: Path) -> None:
    before = site.champion
    push_batch(site, tmp_path / "colleague", site.batches[0])
    run = site.retrain().require(train="success", record="success", propose="success", alarm="skipped")
    outcome, reason = read_report(run)
    assert outcome == "promote"
    (pull,) = site.forge.open_pulls
    assert reason in pull["body"]
    assert site.champion == before, "only a merge promotes"

    # Another proposal supersedes this one.
    other = site.colleague(tmp_path / "other")
    other.set_params({"evaluate.threshold.value": 0.45})
    other.commit("another threshold")
    site.forge.push(other)
    site.retrain().require(propose="success")
    first, second = site.forge.state["pr"][1:]
    assert (first["state"], second["state"]) == ("closed", "open")
    assert first["comments"] == [f"Superseded by {second['url']}"]
    assert site.forge.git("branch", "--list", first["headRefName"]) == ""

    (promoted,) = site.forge.merge(second["number"])
    promoted.require(verify="success", assign="success")
    assert site.champion == site.forge.git("rev-parse", "main")
    assert site.versions == ["sentiment@v1.0.0", "sentiment@v2.0.0"]

    _check_rollback(site, before, tmp_path / "owner")


def _check_rollback(site: Site, before: str | None, folder: Path) -> None:
    """One command makes the earlier model the champion; the next retraining compares with it."""
    owner = site.colleague(folder)
    owner.run("sentiment", "rollback", "--reason", "slow on long reviews", "--push")
    assert site.champion == before
    run = site.retrain().require(train="success", alarm="skipped")
    assert "Running stage 'train'" not in run.log
    assert (site.champion, site.forge.open_pulls) == (before, [])


@pytest.mark.parametrize(
    "kind",
    ["flipped", "flipped 25%", "flipped 10%", "lost", "test rows", "copies", "another domain", "upper case"],
)
def test_bad_data_is_stopped(kind: str, site: Site, tmp_path: Path) -> None:
    champion, branches = site.champion, site.forge.git("branch", "--list", "retrain/*")
    colleague = site.colleague(tmp_path / "colleague")
    first = colleague.root / "data/incoming/first.csv"
    if kind.startswith("flipped"):
        every = {"flipped 10%": 10, "flipped 25%": 4}.get(kind, 1)
        write_batch(colleague, "second.csv", _flip(site.batches[0], every))
        words = ["gives the label"]
    elif kind == "lost":
        first.unlink()
        colleague.commit("lost file")
        words = ["in no split any more"]
    elif kind == "test rows":
        write_batch(colleague, "second.csv", _read_test_rows(site)[:20] + list(site.batches[0])[:280])
        words = ["duplicates of test reviews"]
    elif kind == "copies":  # at which download itself stops
        write_batch(colleague, "second.csv", _read_test_rows(site) + list(site.batches[0])[:50])
        words = ["are duplicates, more than download.checks.duplicates"]
    elif kind == "upper case":
        write_batch(colleague, "second.csv", [(text.upper(), label) for text, label in site.batches[0]])
        words = ["upper case"]
    else:
        write_batch(colleague, "second.csv", _read_snippets())
        words = ["length", "vocabulary"]
    site.forge.push(colleague)
    run = site.retrain().require(train="success", record="success", propose="skipped", alarm="success")
    outcome, reason = read_report(run)
    assert outcome == "data_stopped"
    assert any(word in reason for word in words), reason
    assert "Running stage 'train'" not in run.log
    assert (site.champion, site.forge.open_pulls) == (champion, [])
    assert site.forge.git("branch", "--list", "retrain/*") == branches
    assert [entry["outcome"] for entry in site.ledger] == ["promote", "data_stopped"]
    (issue,) = site.forge.open_issues
    assert issue["title"] == ALARMS["data_stopped"]
    assert reason in issue["body"]
    if kind == "lost":  # a second run comments the issue
        site.retrain().require(train="success", alarm="success")
        (issue,) = site.forge.open_issues
        assert len(issue["comments"]) == 1
        assert len(site.ledger) == 2


def _read_test_rows(site: Site) -> list[tuple[str, int]]:
    """Return reviews of the test split, from the cache of the last run."""
    lock = YAML(typ="safe").load(site.forge.git("show", "main:dvc.lock"))
    (md5,) = (
        out["md5"] for out in lock["stages"]["download"]["outs"] if out["path"].endswith("test.parquet")
    )
    (file,) = site.forge.folder.glob(f"caches/*/content/.dvc/cache/files/md5/{md5[:2]}/{md5[2:]}")
    table = pq.read_table(file)
    return list(zip(table["text"].to_pylist(), table["label"].to_pylist(), strict=True))


def _read_snippets() -> list[tuple[str, int]]:
    """Return snippets of Rotten Tomatoes, which are shorter than the project's reviews."""
    table = pd.read_csv(find_package_file())
    snippets = table[table["source"] == "rotten_tomatoes"].sample(BATCH, random_state=1)
    return [(str(text), int(label)) for text, label in zip(snippets["text"], snippets["label"], strict=True)]


def test_what_was_not_published_is_published_later(site: Site, tmp_path: Path) -> None:
    champion, forge = site.champion, site.forge
    push_batch(site, tmp_path / "colleague", site.batches[0])
    with forge.refusing_pushes("refs/heads/ledger"):
        run = site.retrain().require(train="success", record="failure", propose="skipped", alarm="success")
    assert "could not be recorded" in run.summary
    (issue,) = forge.open_issues
    assert issue["title"] == ALARMS["unpublished"]

    refusals = [
        (forge.refusing("pr list"), "nothing was pushed"),
        (forge.refusing_pushes("refs/heads/models"), "`models` could not be pushed"),
        (forge.refusing_pushes("refs/heads/retrain/*"), "could not be pushed, so there is no pull request"),
        (forge.refusing("pr create"), "Open it yourself: "),
    ]
    for refusal, words in refusals:
        with refusal:
            run = forge.run_failed_jobs_again(run).require(propose="failure", alarm="success")
        assert words in run.summary
        assert forge.open_pulls == []
    assert len(forge.open_issues) == 1
    assert len(forge.open_issues[0]["comments"]) == len(refusals)

    forge.run_failed_jobs_again(run).require(propose="success", alarm="skipped")
    assert len(forge.open_pulls) == 1
    assert [entry["outcome"] for entry in site.ledger] == ["promote", "promote"]
    assert site.champion == champion

    # With a DVC remote, everything goes there.
    models = site.forge.git("rev-parse", "models")
    site.forge.secrets["DVC_REMOTE_URL"] = str(tmp_path / "remote")
    run = site.retrain().require(train="success", record="success", propose="success")
    assert "proposed before" in run.summary
    assert len(site.ledger) == 2
    assert site.forge.git("rev-parse", "models") == models
    (pull,) = site.forge.open_pulls
    lock = YAML(typ="safe").load(site.forge.git("show", f"{pull['headRefName']}:dvc.lock"))
    outs = {out["path"]: out["md5"] for stage in lock["stages"].values() for out in stage["outs"]}
    for path in ("models/selected", "data/reviews/train.parquet"):
        assert (tmp_path / "remote/files/md5" / outs[path][:2] / outs[path][2:]).is_file()


def test_store_of_an_older_mlflow_is_upgraded(site: Site, tmp_path: Path) -> None:
    from alembic import command  # deptry: ignore[DEP003]  # MLflow has no command that downgrades
    from mlflow.store.db.utils import _get_alembic_config

    config = _get_alembic_config(f"sqlite:///{_find_database(site)}")  # type: ignore[no-untyped-call]
    command.downgrade(config, REVISION_OF_MLFLOW_3_16)
    runs, tags = _query(site, RUNS), _query(site, TAGS)
    champion = site.champion
    colleague = site.colleague(tmp_path / "colleague")
    colleague.set_params({"evaluate.threshold.value": 0.45})
    colleague.commit("another threshold")
    site.forge.push(colleague)
    run = site.retrain().require(train="success", record="success", propose="skipped", alarm="skipped")
    assert read_report(run)[0] == "not_better"
    assert "Running stage 'train'" not in run.log
    assert f"mlflow.db.{REVISION_OF_MLFLOW_3_16}" in run.log, "the database from before stays"
    assert _query(site, "SELECT version_num FROM alembic_version") != [(REVISION_OF_MLFLOW_3_16,)]
    assert _query(site, RUNS) == runs
    assert _query(site, TAGS) != tags, "evaluate logs to the runs of the models"
    assert site.champion == champion


def _find_database(site: Site) -> Path:
    """Return the MLflow database in the newest entry of the Actions cache."""
    return sorted(site.forge.folder.glob("caches/*/content/mlruns/mlflow.db"))[-1]


def _query(site: Site, query: str) -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(_find_database(site))) as connection:
        return connection.execute(query).fetchall()


def test_model_of_another_processor_is_not_proposed(site: Site) -> None:
    champion = site.champion
    shutil.rmtree(site.forge.folder / "caches")  # otherwise nothing is trained
    site.forge.variables |= {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}
    run = site.retrain().require(train="success", record="skipped", propose="skipped", alarm="skipped")
    assert "Running stage 'train'" in run.log
    outcome, reason = read_report(run)
    assert outcome == "nothing_new"
    assert "rounding of another processor" in reason
    assert (site.champion, site.forge.open_pulls, len(site.ledger)) == (champion, [], 1)


def test_lock_that_a_colleague_changed_is_only_registered(site: Site, tmp_path: Path) -> None:
    before = site.champion
    colleague = site.colleague(tmp_path / "colleague")
    newest_cache = sorted(site.forge.folder.glob("caches/*/content/.dvc/cache"))[-1]
    shutil.copytree(newest_cache, colleague.root / ".dvc/cache")
    colleague.run("dvc", "checkout")
    colleague.set_params({"evaluate.threshold.value": 0.45})
    colleague.run("dvc", "repro")
    colleague.commit("another threshold")
    (promoted,) = site.forge.push(colleague)
    promoted.require(verify="success", assign="success")
    assert site.champion == before
    assert site.versions == ["sentiment@v1.0.0", "sentiment@v2.0.0"]


def test_lock_that_disagrees_with_its_commit_is_not_registered(site: Site, tmp_path: Path) -> None:
    versions = site.versions
    colleague = site.colleague(tmp_path / "colleague")
    lock = colleague.root / "dvc.lock"
    lock.write_text(lock.read_text().replace("learning_rate: 0.003", "learning_rate: 0.004"))
    colleague.commit("edited")
    (promoted,) = site.forge.push(colleague)
    promoted.require(verify="failure", assign="skipped")
    assert "in dvc.lock 0.004" in promoted.log
    assert site.versions == versions


def test_champion_is_pulled_without_any_cache(site: Site, tmp_path: Path) -> None:
    shutil.rmtree(site.forge.folder / "caches")
    shutil.rmtree(site.forge.folder / "artifacts")
    fresh = site.colleague(tmp_path / "fresh")
    link_environment(fresh.root)
    assert "fetched the models" in fresh.run("make", "setup").stdout
    fresh.run("dvc", "pull", "models/selected")
    probability = float(fresh.run("sentiment", "predict", "A fine film.").stdout.split("\t")[0])
    assert 0 < probability < 1
    shutil.rmtree(fresh.root / ".dvc/cache")
    fresh.run("dvc", "artifacts", "get", ".", "sentiment", "--stage", "champion", "-o", "champion")
    selected, champion = (fresh.root / name / "model.safetensors" for name in ("models/selected", "champion"))
    assert champion.read_bytes() == selected.read_bytes()
    assert json.loads((fresh.root / "champion/config.json").read_text())

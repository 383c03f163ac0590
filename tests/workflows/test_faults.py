"""Cycles of scheduled retraining in which something that the job needs is missing or goes down."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

from bench.tracking_server import PASSWORD as SERVER_PASSWORD
from bench.tracking_server import TrackingServer, tracking_server
from tests.tuning.postgres import PASSWORD, USER, postgres
from tests.workflows.conftest import ALARMS, Site, push_batch, read_report, write_batch
from tests.workflows.forge import WorkflowRun

pytestmark = pytest.mark.timeout(1800)  # the first test also makes the first champion

GONE = {
    "kind": "files",
    "name": "gone",
    "paths": ["data/gone/*.csv"],
    "columns": {"text": "text", "label": "label"},
    "labels": {"0": 0, "1": 1},
}
"""A source whose files do not exist."""

RUNS_OF_STAGE = """
    SELECT count(*) FROM runs JOIN tags USING (run_uuid)
    WHERE tags.key = 'stage' AND tags.value = %s AND status = %s
    AND run_uuid NOT IN (SELECT run_uuid FROM tags WHERE key = 'mlflow.parentRunId')
"""
"""Query of MLflow's database; trials, which have a parent, do not count."""

POLL_S = 0.02


def _require_fault(site: Site, run: WorkflowRun, cause: str) -> None:
    """Require an issue whose first lines have the cause, and that nothing else changed."""
    run.require(train="failure", record="skipped", propose="skipped", alarm="success")
    (issue,) = site.forge.open_issues
    assert issue["title"] == ALARMS["failed"]
    newest = [issue["body"], *issue["comments"]][-1]
    title, reason, *_ = [line for line in newest.splitlines() if line]
    assert title == "# Retraining: failed"
    assert cause in reason
    assert (len(site.ledger), site.forge.open_pulls) == (1, [])


def test_dvc_file_without_its_data_is_a_fault(site: Site, tmp_path: Path) -> None:
    champion = site.champion
    colleague = site.colleague(tmp_path / "colleague")
    write_batch(colleague, "second.csv", site.batches[0])
    colleague.run("git", "rm", "-q", "--cached", "data/incoming/second.csv")
    colleague.run("dvc", "add", "data/incoming/second.csv")  # and never `dvc push`
    colleague.commit("track the reviews with DVC")
    site.forge.push(colleague)
    run = site.retrain()
    _require_fault(site, run, "files differ from its .dvc files")
    assert "second.csv" in run.summary
    assert site.champion == champion


def test_source_that_is_gone_is_a_fault(site: Site, tmp_path: Path) -> None:
    champion = site.champion
    colleague = site.colleague(tmp_path / "colleague")
    colleague.set_params({"download.sources": [{"kind": "package"}, GONE]})
    colleague.commit("another source")
    site.forge.push(colleague)
    _require_fault(site, site.retrain(), "data/gone/*.csv: matches no file")
    assert site.champion == champion


@contextmanager
def _killing(server: TrackingServer, is_time: Callable[[], bool]) -> Iterator[None]:
    """Kill the server in the block as soon as a condition holds, which must be the case before its end."""
    ended, killed = threading.Event(), threading.Event()

    def watch() -> None:
        while not ended.wait(POLL_S):
            if is_time():
                server.kill()
                killed.set()
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    assert killed.is_set(), "the job ended before the server was killed"


def test_tracking_server_that_is_down_before_during_and_after_the_training(
    site: Site, tmp_path: Path
) -> None:
    champion, forge = site.champion, site.forge
    push_batch(site, tmp_path / "colleague", site.batches[0])
    with postgres() as port:
        address = f"{USER}:{quote(PASSWORD)}@127.0.0.1:{port}/postgres"
        database = f"postgresql+psycopg://{address}"
        with (
            tracking_server(tmp_path / "server", tmp_path / "log", database, is_down=True) as server,
            psycopg.connect(f"postgresql://{address}", autocommit=True) as connection,
        ):
            forge.secrets["MLFLOW_TRACKING_URI"] = server.address
            forge.variables["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "1"

            def has_run(stage: str, status: str) -> bool:
                row = connection.execute(RUNS_OF_STAGE, (stage, status)).fetchone()
                return row is not None and row[0] > 0

            runs = [site.retrain()]
            _require_fault(site, runs[-1], "Cannot reach the MLflow tracking store")
            for stage, status in (("train", "RUNNING"), ("tune", "FINISHED")):
                server.start()
                with _killing(server, partial(has_run, stage, status)):
                    runs.append(site.retrain())
                _require_fault(site, runs[-1], "Cannot reach the MLflow tracking store")
            server.start()
            run = site.retrain().require(
                train="success", record="success", propose="success", alarm="skipped"
            )
            assert "Running stage 'train'" not in run.log, "what had finished is not trained again"
    assert read_report(run)[0] == "promote"
    (issue,) = forge.open_issues
    assert len(issue["comments"]) == 2
    assert (site.champion, len(site.ledger), len(forge.open_pulls)) == (champion, 2, 1)
    said = "".join(each.log + each.summary for each in [*runs, run])
    assert not [secret for secret in (SERVER_PASSWORD, quote(PASSWORD)) if secret in said]

"""The data gate in a project with a champion: what is new, what is lost, what stops."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sentiment import paths
from sentiment.data.build import build_splits
from sentiment.data.imdb import load_package_reviews
from sentiment.data.removal import compute_keys
from sentiment.errors import UserError
from sentiment.files import write_json
from sentiment.params import load_params
from sentiment.params.retrain import RetrainParams
from sentiment.retraining.data_gate import ChampionData, DataGateResult, check_new_rows
from tests.data.source_files import write_rows
from tests.project import Project, set_params

pytestmark = pytest.mark.slow

Check = Callable[..., DataGateResult]


@pytest.fixture(scope="module")
def more_reviews() -> list[dict[str, Any]]:
    """A hundred real reviews that are not in the small cut of the package; half of them are positive."""
    package = load_package_reviews().select(["text", "label"])
    return pa.concat_tables([package.slice(8000, 50), package.slice(len(package) - 50, 50)]).to_pylist()


@pytest.fixture
def champion(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ChampionData:
    """The project's model as a champion; the test runs in the project."""
    monkeypatch.chdir(project.root)
    folder = shutil.copytree(paths.SELECTED, tmp_path / "champion")
    return ChampionData(folder, project.run("git", "rev-parse", "HEAD").stdout.strip())


@pytest.fixture
def check(champion: ChampionData) -> Check:
    """Runs the sources through download in this process, and then the gate."""

    def run(*accept: str, previous_rows: int | None = None, **limits: float) -> DataGateResult:
        params = load_params()
        write_json(paths.metrics("download"), {**build_splits(params.download), "files": {}})
        retrain = params.retrain.model_dump() | {"accept": accept}
        retrain["data"] |= {"min_rows": 50, "oov_rate": 0.5, **limits}
        return check_new_rows(champion, RetrainParams.model_validate(retrain), previous_rows)

    return run


def test_data_of_the_champion_have_nothing_new(check: Check) -> None:
    result = check()
    assert (result.batch, result.violations, result.is_stopped) == (None, [], False)
    assert not result.has_changed
    assert result.reason == "no rows are new since the champion was trained"


def test_good_rows_pass(check: Check, more_reviews: list[dict[str, Any]]) -> None:
    write_rows(paths.INCOMING / "a.csv", more_reviews)
    result = check(length_psi=1.0)
    recent = pq.read_table(paths.reviews("recent")).num_rows
    assert result.batch is not None
    assert 0 < recent == 100 - result.batch.rows
    assert not result.violations
    assert result.reason == f"{result.batch.rows} new rows are within the limits of the data gate"
    assert result.measurements["relabelled"] == 0
    assert result.to_dict()["batch"]["digest"] == result.batch.digest


def test_upper_case_stops_until_it_is_accepted(check: Check, more_reviews: list[dict[str, Any]]) -> None:
    write_rows(paths.INCOMING / "a.csv", [{**row, "text": row["text"].upper()} for row in more_reviews])
    result = check(length_psi=1.0)
    assert result.batch is not None
    assert result.is_stopped
    assert [violation.check for violation in result.violations] == ["upper_case"]
    assert result.violations[0].examples[0].startswith("incoming: data/incoming/a.csv row ")
    assert "more than retrain.data.upper_case (10.0%)" in result.reason
    assert f"add {result.batch.digest} to retrain.accept in params.yaml" in result.reason
    accepted = check(result.batch.digest, length_psi=1.0)
    assert (accepted.accepted, accepted.is_stopped) == (True, False)
    assert "are accepted by retrain.accept, although" in accepted.reason
    assert "examples" not in accepted.to_dict()["violations"][0]  # the ledger has no texts


def test_copies_of_test_reviews_stop(check: Check, more_reviews: list[dict[str, Any]]) -> None:
    tested = pq.read_table(paths.reviews("test"), columns=["text", "label"]).slice(0, 10).to_pylist()
    write_rows(paths.INCOMING / "a.csv", more_reviews + tested)
    result = check(length_psi=1.0)
    assert [violation.check for violation in result.violations] == ["duplicates_of_test"]
    assert result.measurements["duplicates_of_test"] == pytest.approx(10 / 100, abs=0.02)


def test_relabelled_rows_are_new(check: Check, champion: ChampionData, project: Project) -> None:
    table = pq.read_table(paths.reviews("train"))
    labels = table["label"].to_numpy().copy()
    labels[:3] = 1 - labels[:3]
    check()
    pq.write_table(table.set_column(1, table.schema.field(1), pa.array(labels)), paths.reviews("train"))
    params = load_params().retrain
    result = check_new_rows(champion, params, None)
    assert result.batch is not None
    assert (result.batch.rows, result.measurements["relabelled"]) == (3, 3)
    assert result.has_changed
    shutil.rmtree(project.root / ".dvc/cache")
    result = check_new_rows(champion, params, None)
    assert (result.batch, result.measurements["relabelled"], result.has_changed) == (None, "not known", True)


def test_lost_rows_stop_unless_they_are_removed(check: Check, project: Project) -> None:
    set_params(project.root, {"download.limit": 300})
    result = check()
    assert result.batch is not None
    assert result.batch.rows < 50
    (violation,) = result.violations
    assert violation.check == "lost"
    assert "% of the rows that the champion has learned from are in no split" in result.reason
    set_params(project.root, {"download.limit": 400})
    texts = pq.read_table(paths.reviews("train"))["text"].to_pylist()[:60]
    paths.REMOVED.write_text("\n".join(compute_keys(texts)))
    removed = check()
    assert (removed.measurements["lost_rows"], removed.is_stopped) == (0, False)


def test_reviews_without_a_removed_one_are_others(check: Check) -> None:
    text = pq.read_table(paths.reviews("train"))["text"][0].as_py()
    paths.REMOVED.write_text(compute_keys([text])[0])
    result = check()
    assert (result.batch, result.is_stopped, result.has_changed) == (None, False, True)


def test_rows_that_moved_to_another_split_are_not_lost(check: Check, project: Project) -> None:
    set_params(project.root, {"download.split.holdout": 0.2, "download.split.train": 0.5})
    result = check()
    assert (result.measurements["lost_rows"], result.has_changed) == (0, True)


def test_rows_that_moved_between_train_and_validation_are_the_same(
    check: Check, champion: ChampionData
) -> None:
    check()
    train, validation = (pq.read_table(paths.reviews(split)) for split in paths.LEARNING_SPLITS)
    pq.write_table(train.slice(20), paths.reviews("train"))
    pq.write_table(pa.concat_tables([train.slice(0, 20), validation]), paths.reviews("validation"))
    result = check_new_rows(champion, load_params().retrain, None)
    assert (result.batch, result.has_changed) == (None, False)


def test_unlabelled_reviews_count_if_a_model_learns_from_them(check: Check, champion: ChampionData) -> None:
    check()
    file, params = paths.reviews("unlabelled"), load_params().retrain
    assert not check_new_rows(champion, params, None, learns_unlabelled=True).has_changed
    table = pq.read_table(paths.reviews("train")).slice(0, 1)
    pq.write_table(table.select(pq.read_schema(file).names), file)
    assert not check_new_rows(champion, params, None).has_changed
    assert check_new_rows(champion, params, None, learns_unlabelled=True).has_changed


def test_champion_without_seen_texts_is_an_error(champion: ChampionData, check: Check) -> None:
    (champion.folder / "seen_texts.npy").unlink()
    with pytest.raises(
        UserError, match=r"the champion has no seen_texts\.npy, so it is not known which rows"
    ):
        check()


def test_seen_texts_of_the_champion_are_its_rows(champion: ChampionData) -> None:
    seen = np.load(champion.folder / "seen_texts.npy")
    assert len(seen) == sum(pq.read_table(paths.reviews(split)).num_rows for split in paths.LEARNING_SPLITS)

"""DVC experiments run in a copy of the repository and log to the MLflow store of the original."""

from pathlib import Path

from tests.project import Project


def test_temporary_experiment_logs_to_the_main_store(project: Project) -> None:
    values = ("-S", "train.clip.threshold=0.7", "-S", "train.optimizer.learning_rate=0.02")
    project.run("dvc", "exp", "run", "--temp", "--name", "gentle", *values)
    runs = project.runs("tags.stage = 'train'")
    assert [run.data.params["train.clip.threshold"] for run in runs] == ["0.7"]
    assert runs[0].data.tags["dvc.experiment"] == "gentle"
    assert (
        runs[0].info.artifact_uri
        == f"{(project.root / 'mlruns' / 'artifacts').as_uri()}/{runs[0].info.run_id}/artifacts"
    )
    assert "gentle" in project.run("dvc", "exp", "show", "--md").stdout
    # Its outputs are in the cache, and its models in no branch.
    for name in ("gentle", runs[0].info.run_id):
        assert project.run("sentiment", "verify", name).stdout.endswith("all checks agree\n")
    compared = project.run("sentiment", "compare", "gentle", "selected").stdout
    assert "gentle compared with selected: " in compared
    assert "equal scores" not in compared
    own = project.run("sentiment", "verify", status=1).stdout  # this store has no run of the original
    assert own.endswith("working tree: 1 not known\n")


def test_experiment_without_evaluate_has_no_model_to_compare(project: Project) -> None:
    project.run(
        "dvc", "exp", "run", "--temp", "--name", "half", "-S", "train.optimizer.learning_rate=0.02", "train"
    )
    failed = project.run("sentiment", "compare", "half", "selected", status=2)
    assert "half: evaluate has not run since models/baseline/" in failed.stderr


def test_temporary_experiment_takes_the_code_of_its_copy(project: Project) -> None:
    """The package is not imported from the tree that the environment was installed from."""
    marker = (
        "import sentiment.paths, pathlib; pathlib.Path('taken_from').write_text(sentiment.paths.__file__)"
    )
    project.run("python", "-c", f"import stages; {marker}")
    assert Path((project.root / "taken_from").read_text()).is_relative_to(project.root)

"""`sentiment retrain`, which `make retrain` and the scheduled workflow call."""

from tests.project import Project


def _report(project: Project) -> str:
    return (project.root / "reports/retrain.md").read_text()


def test_nothing_new_trains_nothing(project: Project) -> None:
    lock = (project.root / "dvc.lock").read_bytes()
    output = project.run("sentiment", "retrain").stdout
    assert "Running stage 'download'" in output
    assert "Running stage 'train'" not in output
    assert "Nothing new: no stage ran" in _report(project)
    assert (project.root / "dvc.lock").read_bytes() == lock


def test_report_compares_with_the_committed_state(project: Project) -> None:
    project.set_params({"evaluate.threshold": 0.4})
    project.run("sentiment", "retrain")
    assert "Stages that ran: evaluate." in _report(project)
    assert "| evaluate.threshold | 0.5" in _report(project)
    assert "metrics/evaluate.json" in _report(project)
    assert "`dvc.lock`: changed" in _report(project)

    project.set_params({"evaluate.threshold": 0.5})  # as before: the results are in the cache
    project.run("sentiment", "retrain")
    assert "Stages restored from the DVC cache: evaluate." in _report(project)
    assert "Stages that ran: none." in _report(project)


def test_failing_stage_fails_the_job(project: Project) -> None:
    project.set_params({"train.epochs": 0})
    failed = project.run("sentiment", "retrain", status=2)
    assert "train.epochs" in failed.stderr


def test_failing_data_leaves_no_report(project: Project) -> None:
    project.set_params({"download.split": {"train": 0.98, "validation": 0.01, "test": 0.01}})
    project.set_params({"download.limit": 20})
    failed = project.run("sentiment", "retrain", status=2)
    assert "the data could not be refreshed" in failed.stderr
    assert "no review with label 0 is left" in failed.stderr
    assert not (project.root / "reports/retrain.md").exists()

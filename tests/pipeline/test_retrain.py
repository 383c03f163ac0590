"""`sentiment retrain`, which `make retrain` and the scheduled workflow call."""

from tests.project import Project


def test_nothing_new_trains_nothing(project: Project) -> None:
    lock = (project.root / "dvc.lock").read_bytes()
    output = project.run("sentiment", "retrain").stdout
    assert "Running stage 'download'" in output
    assert "Running stage 'train'" not in output
    assert "no stage ran" in (project.root / "reports/retrain.md").read_text()
    assert (project.root / "dvc.lock").read_bytes() == lock


def test_report_compares_with_the_committed_state(project: Project) -> None:
    project.set_params({"evaluate.threshold": 0.4})
    project.run("sentiment", "retrain")
    report = (project.root / "reports/retrain.md").read_text()
    assert "Stages that ran: evaluate" in report
    assert "| evaluate.threshold | 0.5" in report
    assert "metrics/evaluate.json" in report


def test_failing_stage_fails_the_job(project: Project) -> None:
    project.set_params({"train.epochs": 0})
    failed = project.run("sentiment", "retrain", status=2)
    assert "train.epochs" in failed.stderr

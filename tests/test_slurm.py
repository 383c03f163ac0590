"""The Slurm jobs, without Slurm: their syntax, and what they take from the environment."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.project import ROOT

JOBS = sorted((ROOT / "slurm").glob("*.sbatch"))

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_job_is_valid_bash(job: Path) -> None:
    subprocess.run(["bash", "-n", job], check=True)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed: make setup")
@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_job_has_no_finding_of_shellcheck(job: Path) -> None:
    done = subprocess.run(["shellcheck", job], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_job_outside_slurm_stops_before_any_work(job: Path, tmp_path: Path) -> None:
    done = subprocess.run(["bash", job], cwd=tmp_path, env={}, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "SLURM_SUBMIT_DIR: unbound variable" in done.stderr
    assert not list(tmp_path.iterdir())

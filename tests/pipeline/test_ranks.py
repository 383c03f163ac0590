"""The train stage with several ranks, started by the stage or by torchrun."""

import os
import signal
from pathlib import Path

from tests.project import PATIENCE_S, Project, wait_for

OUTPUTS = ("models/baseline/model.safetensors", "plots/train.csv", "metrics/train.json")


def test_ranks_started_by_the_stage_and_by_torchrun_write_equal_outputs(project: Project) -> None:
    project.set_params({"train.ranks": 2})
    done = project.run("dvc", "repro", "--single-item", "train")
    assert done.stderr.count("epoch 2: loss") == 1, "only one rank logs"
    outputs = [(project.root / name).read_bytes() for name in OUTPUTS]
    assert [run.info.status for run in project.runs()] == ["FINISHED"]

    project.run("torchrun", "--nproc-per-node", "2", "-m", "stages.train")
    assert [(project.root / name).read_bytes() for name in OUTPUTS] == outputs
    assert [run.info.status for run in project.runs()] == ["FINISHED"] * 2

    refused = project.run("torchrun", "--nproc-per-node", "1", "-m", "stages.train", status=1)
    assert "error: train.ranks is 2, but torchrun started 1 processes (WORLD_SIZE)" in refused.stderr
    both = {"RAY_ADDRESS": "127.0.0.1:1", "RANK": "0", "WORLD_SIZE": "2"}
    assert "RAY_ADDRESS is set, but torchrun has started" in project.stage("train", 2, **both).stderr


def test_interrupted_while_the_ranks_start_trains_nothing(project: Project) -> None:
    project.set_params({"train.ranks": 2})
    log = project.root / "log"
    process = project.start("python", "-m", "stages.train", log=log)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    wait_for(lambda: len(children.read_text().split()) == 2, process)
    os.killpg(process.pid, signal.SIGINT)  # both import torch now, which takes a second
    assert process.wait(PATIENCE_S) == 130
    assert log.read_text() == "interrupted; output files are complete or unchanged\n"

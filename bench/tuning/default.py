"""Wall time of the default `dvc repro` on two cores without AVX-512 and bf16."""

import logging
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bench.bars import Bar
from bench.small import copy_repository, inherited

logger = logging.getLogger(__name__)

CORES = 2
MINUTES_BAR, TRAIN_MINUTES_BAR = 15.0, 5.0
OLD_PROCESSOR = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}
"""Largest instruction set of torch's own kernels, of oneDNN (LSTM) and of MKL (other matrix products)."""
CHANGES = {"train.precision": "fp32"}
"""What `auto` is without bf16; it looks at the processor, not at these variables."""
INSTRUCTION_SET = """
import torch
torch.nn.LSTM(1, 1)(torch.ones(1, 1, 1))  # oneDNN prints its instruction set when it is first used
print("torch:", torch.backends.cpu.get_cpu_capability())
"""
TORCH_ISA = re.compile(r"^torch: (.*)", re.MULTILINE)
ONEDNN_ISA = re.compile(r"onednn_verbose,.*\bisa:(.*)")
STAGE = re.compile(r"Running stage '(\w+)'")


def default_bars() -> list[Bar]:
    """Run the whole pipeline in a copy of the repository that has its own store; print the stages' times.

    Raises:
        RuntimeError: a stage fails.
    """
    with tempfile.TemporaryDirectory(prefix="bench-tune-") as folder, limited_cores(CORES) as cores:
        root = Path(folder)
        copy_repository(root, CHANGES)
        environment = {**inherited(), **OLD_PROCESSOR, "PYTHONPATH": str(root / "src")}
        instruction_set = find_instruction_set(environment)
        logger.info(f"{cores} cores, {instruction_set}")
        started = time.perf_counter()
        starts = _run(root, environment)
        ended = time.perf_counter()
    seconds = compute_durations(starts, ended)
    print(f"\n| stage | s, {cores} cores, {instruction_set} |\n| --- | --- |")
    for stage, duration in seconds.items():
        print(f"| {stage} | {duration:.0f} |")
    return [
        _minutes_bar("default `dvc repro`, minutes", ended - started, MINUTES_BAR),
        _minutes_bar(
            "up to the end of train, minutes",
            compute_end("train", starts, ended) - started,
            TRAIN_MINUTES_BAR,
        ),
    ]


def find_instruction_set(environment: Mapping[str, str]) -> str:
    """Return the instruction sets that torch and oneDNN use in this environment."""
    verbose = {**environment, "ONEDNN_VERBOSE": "1"}
    output = subprocess.run(
        [sys.executable, "-c", INSTRUCTION_SET], env=verbose, capture_output=True, text=True, check=True
    ).stdout
    onednn = ONEDNN_ISA.search(output)
    torch = TORCH_ISA.search(output)
    return f"torch: {torch[1] if torch else 'unknown'}, oneDNN: {onednn[1] if onednn else 'not used'}"


def compute_durations(starts: Mapping[str, float], ended: float) -> dict[str, float]:
    """Return the seconds of each stage, from its start to the start of the next one."""
    return {stage: compute_end(stage, starts, ended) - start for stage, start in starts.items()}


def compute_end(stage: str, starts: Mapping[str, float], ended: float) -> float:
    """Return the start of the stage after `stage`, or the end of the pipeline."""
    return min((start for start in starts.values() if start > starts[stage]), default=ended)


def _minutes_bar(metric: str, seconds: float, bar: float) -> Bar:
    return Bar(metric, f"{seconds / 60:.1f}", f"≤ {bar:g}", seconds / 60 <= bar)


def _run(root: Path, environment: Mapping[str, str]) -> dict[str, float]:
    """Run the pipeline; return when each stage started."""
    process = subprocess.Popen(
        ["dvc", "repro", "--force"],
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines: list[str] = []
    starts: dict[str, float] = {}
    for line in _read(process.stdout or ()):
        lines.append(line)
        if match := STAGE.search(line):
            starts[match[1]] = time.perf_counter()
            logger.info(line)
    if process.wait():
        raise RuntimeError("\n".join(["dvc repro failed:", *lines[-20:]]))
    return starts


def _read(output: Iterable[str]) -> Iterator[str]:
    for line in output:
        yield line.rstrip()


@contextmanager
def limited_cores(count: int) -> Iterator[int]:
    """Let this process and those that it starts use some cores only, if possible; yield their number."""
    if not hasattr(os, "sched_setaffinity"):  # macOS
        yield os.cpu_count() or 1
        return
    available = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(available)[:count])
    try:
        yield min(count, len(available))
    finally:
        os.sched_setaffinity(0, available)

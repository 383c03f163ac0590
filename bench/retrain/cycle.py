"""The whole `sentiment retrain`, as a job calls it: without news, and killed at random moments."""

import json
import logging
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.bars import Bar
from bench.small import ROOT, SMALL, copy_repository, inherited, set_params

logger = logging.getLogger(__name__)

EASY: Mapping[str, Any] = {
    "evaluate.limits.behaviour": {},
    "retrain.data.min_rows": 50,
}
"""Parameters under which the model of a small project can become the champion."""

NOTHING_NEW_BAR_S = 10.0
REPETITIONS = 3
KILLS = 20
SEED = 1


def nothing_new_bars() -> list[Bar]:
    """Time retrainings of the repository's own results, of which nothing is new."""
    with tempfile.TemporaryDirectory(prefix="bench-retrain-") as folder:
        root = Path(folder) / "clone"
        _run(ROOT, "git", "clone", "--quiet", "--no-local", str(ROOT), str(root))
        _run(root, "git", "remote", "remove", "origin")  # whose registry would be this repository's
        cache = ROOT / ".dvc" / "cache"
        _run(root, "dvc", "cache", "dir", "--local", str(cache))
        _run(root, "dvc", "checkout", "--quiet")
        for tag in _run(root, "git", "tag", "--list", "sentiment[@#]*").split():
            _run(root, "git", "tag", "--delete", tag)
        _run(root, "sentiment", "promote", "--first")
        seconds = []
        for _ in range(1 + REPETITIONS):  # the first one is not warm
            started = time.perf_counter()
            output = _run(root, "sentiment", "retrain")
            seconds.append(time.perf_counter() - started)
            if "nothing_new" not in output:
                raise RuntimeError(f"something is new: {output}")
    median = sorted(seconds[1:])[REPETITIONS // 2]
    return [
        Bar(
            "nothing new, warm, seconds",
            f"{median:.1f} (first: {seconds[0]:.1f})",
            f"≤ {NOTHING_NEW_BAR_S:g}",
            median <= NOTHING_NEW_BAR_S,
        )
    ]


def kill_bars() -> list[Bar]:
    """Kill a retraining at random moments, and compare its end with that of one that was not killed."""
    with tempfile.TemporaryDirectory(prefix="bench-retrain-") as folder:
        whole, killed = Path(folder) / "whole", Path(folder) / "killed"
        whole.mkdir()
        make_small_project(whole)
        set_params(whole, {"train.epochs": 1, "tokenize.vocabulary_size": 1400})
        _run(whole, "git", "commit", "-qam", "other parameters")
        shutil.copytree(whole, killed, symlinks=True)
        started = time.perf_counter()
        _run(whole, "sentiment", "retrain")
        longest = time.perf_counter() - started
        generator = random.Random(SEED)  # noqa: S311, moments of kills are no secrets
        kills = 0
        while kills < KILLS:
            process = subprocess.Popen(
                ["sentiment", "retrain"],
                cwd=killed,
                env=inherited(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            started = time.perf_counter()
            with suppress(subprocess.TimeoutExpired):
                process.wait(generator.uniform(0, longest))
            if process.poll() is None:
                kills += 1
            else:  # what is left takes no longer, since the stages that finished do not run again
                longest = time.perf_counter() - started
            _kill_group(process)
            _run(killed, "sentiment", "repair")
        _run(killed, "sentiment", "retrain")
        readers = {"dvc.lock": _read_lock, "the ledger": _read_ledger, "the outcome": _read_outcome}
        differences = [name for name, read in readers.items() if read(whole) != read(killed)]
        lines = len(_read_ledger(killed))
    return [
        Bar(
            f"killed {KILLS} times: what differs from a retraining that was not",
            ", ".join(differences) or "nothing",
            "nothing",
            not differences,
        ),
        Bar("lines of the ledger", str(lines), "1", lines == 1),
    ]


def make_small_project(folder: Path) -> None:
    """Make a small project whose model is the champion."""
    copy_repository(folder, {**SMALL, **EASY})
    _run(folder, "dvc", "repro", "--quiet")
    _run(folder, "git", "add", "--all")
    _run(folder, "git", "commit", "-qm", "first results")
    _run(folder, "sentiment", "promote", "--first")


def _run(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, env=inherited(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}")
    return done.stdout


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _read_lock(root: Path) -> object:
    return (root / "dvc.lock").read_bytes()


def _read_ledger(root: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in _run(root, "git", "show", "ledger:decisions.jsonl").splitlines()]
    return [{name: value for name, value in line.items() if name != "created"} for line in lines]


def _read_outcome(root: Path) -> str:
    return str(json.loads((root / "reports/retrain.json").read_text())["outcome"])

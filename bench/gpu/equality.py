"""Equal runs are equal, on the CPU and on CUDA alike; a killed run resumes; every kind of setting runs."""

import json
import multiprocessing
import os
import time
import traceback
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from bench.gpu.child import train
from bench.gpu.context import Bench, brief
from bench.gpu.packed import fewer
from sentiment.tokens.batches import TrainingData
from sentiment.training.checkpoint import STATE_FILE
from sentiment.training.loop import fit

AUC_BAR = 0.002
REVIEWS, VALIDATION = 8_000, 2_500
"""Enough for a steady AUC, few enough for the CPU to train on meanwhile."""
EPOCHS = 3
CHECKPOINT_SECONDS = 0.3
"""The kill comes at the first checkpoint, which must lie within an epoch."""
PROBE_REVIEWS = 640
"""Reviews that each kind of setting is tried on, for one epoch."""

PROCESSES = multiprocessing.get_context("forkserver")
"""Processes start from one that has imported all and computed nothing: CUDA does not survive a fork."""

CLIPPING: dict[str, dict[str, Any]] = {
    "norm": {"kind": "norm", "threshold": 0.05},
    "value": {"kind": "value", "threshold": 0.001},
    "adaptive": {"kind": "adaptive", "threshold": 0.01},
    "percentile": {"kind": "percentile", "percentile": 10},
    "none": {"kind": "none"},
}

SETTINGS: dict[str, dict[str, Any]] = {
    "pooling last": {"model.pooling": "last"},
    "pooling mean": {"model.pooling": "mean"},
    "pooling attention": {"model.pooling": "attention"},
    "truncated BPTT": {"model.carry_state": True},
    "one direction, read in one go": {"model.bidirectional": False, "model.chunk_tokens": None},
    "two layers, hidden head": {
        "model.layers": 2,
        "model.dropout.layers": 0.2,
        "model.dropout.embeddings": 0.1,
        "model.head": {"units": 8, "activation": "gelu"},
    },
    "32-bit floats": {"train.precision": "fp32"},
    "no n-grams, no average": {"model.ngrams": None, "train.ema_decay": 0.0},
    "SGD with L1": {
        "train.optimizer": {
            "kind": "sgd", "learning_rate": 0.05, "momentum": 0.9, "weight_decay": 0.0, "l1": 1e-6,
        }
    },
}  # fmt: skip
"""Kinds of setting whose kernels the default run does not touch."""


def measure(bench: Bench) -> None:
    """Start all trainings side by side, kill one, compare; then try the settings one after another."""
    PROCESSES.set_forkserver_preload(["bench.gpu.child"])
    cores = max(1, len(os.sched_getaffinity(0)) - 4)
    model = bench.folder / "model"
    twins = [Training(bench, "first", bench.device, model=model), Training(bench, "second", bench.device)]
    often = CHECKPOINT_SECONDS if bench.on_gpu else 0.05
    killed = Training(bench, "killed", bench.device, checkpoint_seconds=often)
    on_cpu = Training(bench, "cpu", "cpu", threads=cores) if bench.on_gpu else None
    for training in [*twins, killed, *filter(None, [on_cpu])]:
        training.start()
    first: dict[str, Any] = {}
    when = "not started"
    try:
        with bench.guarded("two trainings from one seed, bits"):
            when = killed.kill_after_checkpoint()
            killed.start()
            first = twins[0].result()
            equal = twins[1].result()["digest"] == first["digest"]
            bench.row("two trainings from one seed, bits", "equal" if equal else "differ", "equal", equal)
        with bench.guarded("SIGKILL and resume against uninterrupted"):
            _compare_resumed(bench, killed.result(), first, when)
        _settings(bench)
        with bench.guarded("validation AUC, CUDA minus CPU"):
            _compare_cpu(bench, first, on_cpu)
    finally:
        for training in [*twins, killed, *filter(None, [on_cpu])]:
            training.stop()


def _compare_resumed(bench: Bench, resumed: dict[str, Any], first: dict[str, Any], when: str) -> None:
    equal = bool(resumed["digest"] == first["digest"])
    went = "resumed" if resumed["resumed"] else "did not resume"
    value = f"{when}, {went}, bits {'equal' if equal else 'differ'}"
    bench.row(
        "SIGKILL and resume against uninterrupted", value, "resumed, equal", equal and resumed["resumed"]
    )


def _compare_cpu(bench: Bench, first: dict[str, Any], on_cpu: "Training | None") -> None:
    """On the CPU itself there is nothing to compare: the row is printed without a verdict."""
    bench.note("equality", {"first": first})
    if on_cpu is None:
        bench.row("validation AUC, CUDA minus CPU", "one device", f"≤ {AUC_BAR} apart")
        return
    other = on_cpu.result()
    bench.note("equality on the CPU", other)
    apart = first["validation_auc"] - other["validation_auc"]
    value = f"{apart:+.4f} ({first['validation_auc']:.4f}, {other['validation_auc']:.4f})"
    bench.row("validation AUC, CUDA minus CPU", value, f"≤ {AUC_BAR} apart", abs(apart) <= AUC_BAR)


def _settings(bench: Bench) -> None:
    learning = fewer(bench.pack.learning(), PROBE_REVIEWS, PROBE_REVIEWS // 4)
    clipping = {kind: {"train.clip": clip} for kind, clip in CLIPPING.items()}
    for metric, kinds in {"each kind of clipping runs": clipping, "other settings run": SETTINGS}.items():
        results, failed = [], False
        for name, changes in kinds.items():
            try:
                share = _clipped(bench, learning, changes)
                results.append(f"{name} (clipped {share:.0%} of steps)" if kinds is clipping else name)
            except Exception as error:  # one that fails must not hide the others
                failed = True
                bench.note(f"failed: {name}", traceback.format_exc())
                results.append(f"{name} FAILED: {brief(error)}")
        bench.row(metric, "; ".join(results), "all", not failed)


def _clipped(bench: Bench, learning: TrainingData, changes: dict[str, Any]) -> float:
    """Train for an epoch and return the share of steps clipped. Raises what training raises."""
    short = {"train.epochs": 1, "train.schedule": {"kind": "constant", "warmup_steps": 0}}
    model, params = bench.pack.configuration(short, changes, device=bench.device)
    return fit(model, params, learning, on_epoch=lambda _: None).best.clipping_rate


@dataclass
class Training:
    """A child process that trains."""

    bench: Bench
    name: str
    device: str
    threads: int = 1
    checkpoint_seconds: float = 60.0
    model: Path | None = None
    process: ForkServerProcess | None = field(default=None, init=False)

    @property
    def _folder(self) -> Path:
        return self.bench.folder / "equality" / self.name

    def start(self) -> None:
        """Start or restart it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        job = {
            "pack": self.bench.pack.folder.resolve(),
            "smoke": self.bench.pack.smoke,
            "device": self.device,
            "threads": self.threads,
            "changes": {"train.epochs": EPOCHS},
            "reviews": REVIEWS,
            "validation": VALIDATION,
            "checkpoints": self._folder / "checkpoints",
            "minutes": self.checkpoint_seconds / 60,
            "model": self.model,
            "out": self._folder / "result.json",
            "log": self._folder / "log",
        }
        self.process = PROCESSES.Process(target=train, args=(job,))
        self.process.start()

    def kill_after_checkpoint(self) -> str:
        """Send SIGKILL as soon as there is a checkpoint; return a description of the moment."""
        assert self.process is not None
        while self.process.is_alive() and self.bench.left > 0:
            if list((self._folder / "checkpoints").glob(f"*/{STATE_FILE}")):
                self.process.kill()
                self.process.join()
                return "killed"
            time.sleep(0.005)
        return "over before the kill"

    def result(self) -> dict[str, Any]:
        """Wait for it and return what it wrote. Raises RuntimeError with its last words where it failed."""
        assert self.process is not None
        self.process.join(max(1.0, 0.6 * self.bench.left))  # a hanging one leaves time for the settings
        if self.process.is_alive():
            raise RuntimeError(f"{self.name}: not over in time")
        if self.process.exitcode != 0:
            log = self._folder / "log"
            words = log.read_text(errors="replace").strip().splitlines()[-1:] if log.exists() else []
            raise RuntimeError(f"{self.name}: exit status {self.process.exitcode}: {' '.join(words)}")
        content: dict[str, Any] = json.loads((self._folder / "result.json").read_bytes())
        return content

    def stop(self) -> None:
        """Terminate it if it still runs."""
        if self.process is not None and self.process.is_alive():
            self.process.kill()
            self.process.join()

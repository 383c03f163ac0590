"""Starts the ranks of a training on this machine, or joins those that torchrun has started."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import Store, TCPStore

from sentiment.child_processes import blocked_interrupts
from sentiment.errors import INTERRUPTED_STATUS, UserError
from sentiment.logs import silence
from sentiment.params.train import TrainParams
from sentiment.training.ranks import SINGLE, LostRankError, Ranks, communicate
from sentiment.training.runtime import resolve_device

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"

MAX_STARTS = 4
"""Number of times that the ranks are started before a training whose ranks get killed stops."""

GRACE_SECONDS = 20.0
"""Time in which the other ranks end by themselves after one ended: they notice at their next step."""

MEETING = ("MASTER_ADDR", "MASTER_PORT")
"""Environment variables of torchrun with the address where the ranks find each other."""

POLL_SECONDS = 0.1
"""Interval at which the ranks are polled."""

TIMEOUT = timedelta(minutes=30)
"""Time that a rank waits for another one, for example while rank 0 writes a checkpoint."""

PARENT = "SENTIMENT_RANKS_PARENT"
"""Environment variable with the process id of the process that started the ranks, without which they end."""


def are_ranks_missing(params: TrainParams) -> bool:
    """Return whether `start_ranks` must start the ranks; check what is known before any work starts.

    torchrun sets the environment variables RANK and WORLD_SIZE of the processes that it starts.

    Raises:
        UserError: torchrun started another number of processes, or the device does not support ranks.
    """
    started = _read_integer("WORLD_SIZE", 1) if "RANK" in os.environ else None
    if started not in (None, params.ranks):
        raise UserError(
            f"train.ranks is {params.ranks}, but torchrun started {started} processes (WORLD_SIZE): start "
            f"{params.ranks} on all nodes together (--nnodes times --nproc-per-node), or change train.ranks, "
            "on which the result depends"
        )
    if params.ranks == 1:
        return False
    if started is not None and (missing := [name for name in MEETING if name not in os.environ]):
        raise UserError(
            f"train.ranks: the environment variable RANK is set, but not {' and '.join(missing)}, with which "
            "the ranks find each other; start them with torchrun, or unset RANK and WORLD_SIZE"
        )
    device = resolve_device(params.device)
    if device.type == "mps":
        raise UserError("train.ranks: several ranks train on cpu or cuda, not on mps; set it to 1")
    local_ranks = params.ranks if started is None else _read_integer("LOCAL_WORLD_SIZE", 1)
    if device.type == "cuda" and torch.cuda.device_count() < local_ranks:
        raise UserError(
            f"train.ranks: {local_ranks} ranks need as many GPUs on this machine, which has "
            f"{torch.cuda.device_count()}; use more machines (docs/scaling.md), fewer ranks or the CPU"
        )
    return started is None


@contextmanager
def join_ranks(params: TrainParams) -> Iterator[Ranks]:
    """Join the process group of a training whose ranks `start_ranks` or torchrun has started.

    Only rank 0 logs. With `train.ranks` 1 there is no group.
    """
    if params.ranks == 1:
        yield SINGLE
        return
    if PARENT in os.environ:
        threading.Thread(target=_exit_with_parent, daemon=True).start()
    rank, local_rank = _read_integer("RANK", 0), _read_integer("LOCAL_RANK", 0)
    if rank > 0:
        silence()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; rank 0 reports it
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # `start_ranks` has blocked it
    with open_process_group(params, Ranks(rank, params.ranks), local_rank) as ranks:
        yield ranks


@contextmanager
def open_process_group(
    params: TrainParams, ranks: Ranks, local_rank: int, store: Store | None = None
) -> Iterator[Ranks]:
    """Open the process group of several ranks: gloo between processors, NCCL between GPUs.

    Args:
        params: training parameters.
        ranks: which rank this process is.
        local_rank: number of this rank among those of its machine, which is the number of its GPU.
        store: store in which the ranks find each other; None takes the one that the environment names.
    """
    if resolve_device(params.device).type == "cuda":
        torch.cuda.set_device(local_rank)
        backend = "cpu:gloo,cuda:nccl"
    else:
        backend = "gloo"
    with _batch_scheduling():
        communicate(
            ranks,
            lambda: dist.init_process_group(
                backend, store=store, rank=ranks.rank, world_size=ranks.size, timeout=TIMEOUT
            ),
        )
    try:
        yield ranks
    finally:
        dist.destroy_process_group()


@contextmanager
def _batch_scheduling() -> Iterator[None]:
    """Give threads that start in this block the policy SCHED_BATCH: they preempt no other thread (Linux).

    The thread of gloo that receives would preempt the one that sends while that holds a lock, and then poll
    for this lock until its time slice ends. With a core for each rank, a step took 3 to 6 ms longer.
    """
    if not hasattr(os, "SCHED_BATCH") or os.sched_getscheduler(0) != os.SCHED_OTHER:
        yield
        return
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def start_ranks(module: str, count: int) -> None:
    """Run a module in several processes of this machine, one rank each, until all have ended.

    If a rank is killed, for example since memory ran out, the others end as well and all start again: the
    training resumes from its checkpoint. After Ctrl-C, nothing starts again.

    Args:
        module: module whose `main` calls `join_ranks`.
        count: number of ranks.

    Raises:
        UserError: ranks were killed repeatedly.
        SystemExit: a rank ended with an error, which it has reported; the exit status is that of the rank.
        KeyboardInterrupt: ranks were killed after Ctrl-C.
    """
    interrupted = threading.Event()
    # A terminal sends the signal to rank 0 as well, which ends the training.
    previous = signal.signal(signal.SIGINT, lambda *_: interrupted.set())
    try:
        for _ in range(MAX_STARTS):
            # In the store, the ranks find each other. It listens at a port that the system chooses.
            store = TCPStore(LOOPBACK, 0, is_master=True, wait_for_workers=False)
            ranks = [_start_rank(module, rank, count, store.port) for rank in range(count)]
            statuses = _wait(ranks)
            if not any(statuses):
                return
            names = {rank: signal.Signals(-status).name for rank, status in enumerate(statuses) if status < 0}
            if not names:
                raise SystemExit(max(statuses))
            if interrupted.is_set():
                raise KeyboardInterrupt
            killed = ", ".join(f"rank {rank} ({name})" for rank, name in names.items())
            logger.warning(f"killed: {killed}; all ranks end, to start again from the last checkpoint")
    finally:
        signal.signal(signal.SIGINT, previous)
    raise UserError(
        f"train: ranks were killed {MAX_STARTS} times, the last time {killed}; start the same command again "
        "to resume, for example with less other work on this machine if memory ran out"
    )


def _start_rank(module: str, rank: int, count: int, port: int) -> "subprocess.Popen[bytes]":
    """Start a rank with the environment variables of torchrun, which `init_process_group` reads."""
    environment = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": count,
        "LOCAL_WORLD_SIZE": count,
        "MASTER_ADDR": LOOPBACK,
        "MASTER_PORT": port,
        "TORCHELASTIC_USE_AGENT_STORE": True,  # the store is in this process, not in rank 0
        "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo",
        PARENT: os.getpid(),
    }
    with blocked_interrupts():  # until `join_ranks`
        return subprocess.Popen(
            [sys.executable, "-m", module],
            env={**os.environ, **{name: str(value) for name, value in environment.items()}},
        )


def _wait(ranks: Sequence["subprocess.Popen[bytes]"]) -> list[int]:
    """Wait until all ranks have ended, and return their exit statuses; minus the signal if one was killed.

    Once a rank has failed, the others have `GRACE_SECONDS` to end; then they are killed, with status 1. After
    Ctrl-C, which rank 0 reports, they are killed at once: they may wait for rank 0 to join them.
    """
    while any(rank.poll() is None for rank in ranks) and not any(rank.poll() for rank in ranks):
        time.sleep(POLL_SECONDS)
    grace = 0.0 if ranks[0].poll() == INTERRUPTED_STATUS else GRACE_SECONDS
    deadline = time.monotonic() + grace
    statuses = []
    for rank in ranks:
        try:
            statuses.append(rank.wait(max(0.0, deadline - time.monotonic())))
        except subprocess.TimeoutExpired:
            rank.kill()
            rank.wait()
            statuses.append(LostRankError.exit_status)
    return statuses


def _read_integer(variable: str, default: int) -> int:
    value = os.environ.get(variable, str(default))
    if not value.isdecimal():
        raise UserError(f"{variable}: expected a number, as torchrun sets it, not {value!r}")
    return int(value)


def _exit_with_parent() -> None:
    """Wait until the process that started the ranks has ended, then end this process."""
    parent = int(os.environ[PARENT])
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(LostRankError.exit_status)  # immediately: a restarted training needs the lock of its checkpoint

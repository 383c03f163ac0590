"""Time that training spends in the forward pass, the backward pass and the optimizer step."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from sentiment.model.classifier import SentimentClassifier


@dataclass
class Phases:
    """Seconds per phase. Validation, loss, clipping and the moving average of the weights are left out."""

    forward: float = 0.0
    backward: float = 0.0
    step: float = 0.0

    @property
    def seconds(self) -> float:
        """Sum of the phases."""
        return self.forward + self.backward + self.step


@contextmanager
def timed_phases() -> Iterator[Phases]:
    """Time the phases of all training inside the block; the values are set when it ends."""
    phases = Phases()
    started = 0.0

    def before_step(*_: Any) -> None:
        nonlocal started
        started = time.perf_counter()

    def after_step(*_: Any) -> None:
        phases.step += time.perf_counter() - started

    handles = [register_optimizer_step_pre_hook(before_step), register_optimizer_step_post_hook(after_step)]
    try:
        with (
            timed_calls(
                SentimentClassifier, "compute_branch_logits", lambda model: model.training
            ) as forward,
            timed_calls(torch.Tensor, "backward") as backward,
        ):
            yield phases
    finally:
        for handle in handles:
            handle.remove()
    phases.forward, phases.backward = sum(forward), sum(backward)


@contextmanager
def timed_calls(
    owner: Any, name: str, counts: Callable[[Any], bool] = lambda _: True
) -> Iterator[list[float]]:
    """Yield a list to which the duration of each call of a function inside the block is added, in seconds.

    Args:
        owner: the class or module of the function.
        name: name of the function.
        counts: whether a call counts, given its first argument.
    """
    function = getattr(owner, name)
    seconds: list[float] = []

    def timed(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        result = function(*args, **kwargs)
        if counts(args[0]):
            seconds.append(time.perf_counter() - started)
        return result

    setattr(owner, name, timed)
    try:
        yield seconds
    finally:
        setattr(owner, name, function)

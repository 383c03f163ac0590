"""How long training is in the model, in the backward pass, in the optimizer's step and in scoring."""

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
    """Seconds so far. Scoring counts for nothing; neither do the loss, clipping and averaging the weights."""

    forward: float = 0.0
    backward: float = 0.0
    step: float = 0.0

    @property
    def seconds(self) -> float:
        """All three."""
        return self.forward + self.backward + self.step


@contextmanager
def timed_phases() -> Iterator[Phases]:
    """Time the phases of all training inside the block; log them when it ends."""
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
    """Yield a list that gets the seconds of each call of a function inside the block.

    owner: the class or module that the function is looked up in. counts: whether a call counts, by its first
    argument.
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

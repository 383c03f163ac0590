"""How long a GPU computes while some work is done."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile

KERNELS = 15


@dataclass(frozen=True)
class GpuTime:
    """Activity of a GPU: seconds in which at least one kernel or copy ran; the longest kernels, total ms."""

    seconds: float
    kernels: dict[str, float]


def gpu_time(work: Callable[[], object]) -> GpuTime:
    """Profile the GPU while `work` runs. Raises RuntimeError if the profiler sees nothing."""
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        work()
        torch.cuda.synchronize()
    spans: list[tuple[float, float]] = []
    kernels: defaultdict[str, float] = defaultdict(float)
    for event in profiled.events() or ():
        if str(event.device_type).endswith("CUDA") and not getattr(event, "is_user_annotation", False):
            spans.append((event.time_range.start, event.time_range.end))  # microseconds
            kernels[event.name[:120]] += spans[-1][1] - spans[-1][0]
    if not spans:
        raise RuntimeError("the profiler saw nothing on the GPU")
    names = sorted(kernels, key=lambda name: -kernels[name])[:KERNELS]
    longest = {name: round(kernels[name] / 1e3, 2) for name in names}
    return GpuTime(covered(spans) / 1e6, longest)


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Return the length of the union of spans: kernels of several streams run at once."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total

"""How torch on the CPU gets its memory. None of it changes a result."""

import ctypes
import os

M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8
"""Options of glibc's mallopt (malloc.h)."""


def set_up_memory() -> None:
    """Make large tensors cheap to allocate, and kernels few; call it before the first step.

    oneDNN reads its variable at its first kernel, cuBLAS its own when it starts.
    """
    # Large tensors come and go with each step. By default each is mapped anew, zeroed page by page, and
    # unmapped; kept in the heap, its pages are used again and a step takes two thirds of the time.
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_ARENA_MAX, 1)  # backward has a thread of its own, and would get a heap of its own
    # A kernel is kept for each shape that was met, and reviews come in hundreds of lengths: 1024 kernels, the
    # default, lie all over the heap, with holes that no tensor fits into. Four last from one direction to the
    # other; what comes after that is of another shape.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "4")
    # With buffers of several sizes, its default, cuBLAS may add up in another order from run to run; torch,
    # asked for deterministic algorithms, then refuses to multiply. Eight buffers of 4096 KB are of one size.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def release_memory() -> None:
    """Hand freed memory back to the system, where the C library can (glibc).

    Once training has set memory up, the C library does so no more by itself: what an epoch or a trial needed
    would stay with the process.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)

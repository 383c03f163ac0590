"""How torch gets its memory."""

import ctypes
import os


def set_up_memory() -> None:
    """Make large tensors cheap to allocate, kernels few and GPU sums repeatable; call it before any tensor.

    torch reads the first variable when it makes its first tensor, oneDNN and cuBLAS theirs at their first
    kernel. None of it changes a result on the CPU.
    """
    # Large tensors come and go with each step. In huge pages, that costs a twentieth of the page faults and
    # a step takes four fifths of the time.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    # A kernel is kept for each shape that was met. Reviews come in hundreds of lengths: the default of 1024
    # kernels takes 100 MB more an epoch, and a step takes no less time.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    # With buffers of several sizes, its default, cuBLAS may add up in another order from run to run; torch,
    # asked for deterministic algorithms, then refuses to multiply. Eight buffers of 4096 KB are of one size.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def release_memory() -> None:
    """Hand freed memory back to the system, where the C library can (glibc).

    Tensors of all sizes leave holes behind; without this a search of six trials takes 700 MB more.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)

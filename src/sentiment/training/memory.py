"""How torch on the CPU gets its memory. None of it changes a result."""

import ctypes
import os


def set_up_memory() -> None:
    """Make large tensors cheap to allocate, and kernels few; call it before the first tensor.

    torch reads the one variable when it makes its first tensor, oneDNN the other at its first kernel.
    """
    # Large tensors come and go with each step. In huge pages, that costs a twentieth of the page faults and
    # a step takes four fifths of the time.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    # A kernel is kept for each shape that was met. Reviews come in hundreds of lengths: the default of 1024
    # kernels takes 100 MB more an epoch, and a step takes no less time.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")


def release_memory() -> None:
    """Hand freed memory back to the system, where the C library can (glibc).

    Tensors of all sizes leave holes behind; without this a search of six trials takes 700 MB more.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)

"""Device, precision and memory allocation of torch."""

import ctypes
import os
from typing import Literal

import torch

from sentiment.errors import UserError


def resolve_device(requested: Literal["auto", "cpu", "cuda", "mps"]) -> torch.device:
    """Return the device to train on; `auto` selects a CUDA device if one is available, otherwise the CPU.

    Apple's MPS must be requested by name: on it torch's LSTM has repeatedly computed wrong gradients without
    an error (pytorch issues 92615 and 190056), and training is not guaranteed to be deterministic.

    Raises:
        UserError: the requested device is not available.
    """
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if requested == "auto":
        return torch.device("cuda" if available["cuda"] else "cpu")
    if not available[requested]:
        devices = ", ".join(name for name, is_available in available.items() if is_available)
        raise UserError(
            f"train.device: {requested} is not available to torch {torch.__version__} on this machine; "
            f"available: {devices}. Use one of these, or auto"
        )
    return torch.device(requested)


Precision = Literal["fp32", "bf16"]

MIN_CUDNN_FOR_BF16 = 91300
"""cuDNN 9.13, the first version whose LSTM supports bf16. With an older one, torch would compute the time
steps one by one, many times slower (torch's CUDAHooks.cpp, supportsBFloat16RNNWithCuDNN)."""


def resolve_precision(requested: Literal["fp32", "bf16", "auto"], device: torch.device) -> Precision:
    """Return the precision to train in; `auto` selects bf16 if the hardware supports it, otherwise fp32.

    With AVX-512 but without bf16 instructions, a step in bf16 takes longer than in fp32; without AVX-512,
    oneDNN has no LSTM in bf16. On CUDA, bf16 also requires cuDNN 9.13.

    Raises:
        UserError: bf16 is requested by name and the device does not support it.
    """
    if requested == "fp32":
        return requested
    if _supports_bf16(device):
        return "bf16"
    if requested == "bf16":
        name = "processor" if device.type == "cpu" else f"{device.type} device"
        cudnn = ", or its cuDNN is older than 9.13" if device.type == "cuda" else ""
        raise UserError(
            f"train.precision: this {name} does not support bf16 in hardware{cudnn}; use fp32 or auto"
        )
    return "fp32"


def _supports_bf16(device: torch.device) -> bool:
    match device.type:
        case "cpu":
            capabilities = torch.cpu.get_capabilities()
            return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
        case "cuda":
            cudnn = torch.backends.cudnn.version() or 0  # type: ignore[no-untyped-call]
            return cudnn >= MIN_CUDNN_FOR_BF16 and torch.cuda.is_bf16_supported(including_emulation=False)
        case _:
            return False


M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8
"""Options of glibc's mallopt (malloc.h)."""


def configure_allocator() -> None:
    """Reduce the cost of allocating large tensors, and limit kernel caches. Call it before the first step.

    oneDNN reads its environment variable when it creates its first kernel, cuBLAS when it is initialized.
    """
    # Each step allocates and frees large tensors. By default, glibc maps and unmaps the memory of each, and
    # the kernel zeroes it page by page. From the heap, pages are reused: a step takes two thirds of the time.
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_ARENA_MAX, 1)  # the backward pass has its own thread, which would get its own heap
    # oneDNN caches a kernel for each shape, and reviews have hundreds of lengths: 1024 kernels, the default,
    # fragment the heap into gaps too small for a tensor. Four are enough for both directions of an LSTM to
    # share their kernels; the next batch has another shape anyway.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "4")
    # The default workspace of cuBLAS has buffers of several sizes, with which the order of sums may differ
    # between runs; torch raises an error then if deterministic algorithms are required. ":4096:8" means
    # eight buffers of the same size, 4096 KB.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def release_memory() -> None:
    """Return freed memory to the operating system, if the C library supports that (glibc).

    After `configure_allocator`, the C library no longer does so by itself: without this call, the process
    would retain the memory of every completed epoch or trial.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)

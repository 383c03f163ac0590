"""Where and how torch computes: device, precision, memory."""

import ctypes
import os
from typing import Literal

import torch

from sentiment.errors import UserError


def resolve_device(asked: Literal["auto", "cpu", "cuda", "mps"]) -> torch.device:
    """Return the device to train on: `auto` is a CUDA device where there is one, else the CPU.

    Apple's MPS is taken only by name: on it torch's LSTM has more than once given wrong gradients without
    an error (pytorch issues 92615 and 190056), and equal runs are not promised to be equal bit for bit.
    Raises UserError where the device asked for by name is not there.
    """
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if asked == "auto":
        return torch.device("cuda" if there["cuda"] else "cpu")
    if not there[asked]:
        found = ", ".join(name for name, is_there in there.items() if is_there)
        raise UserError(
            f"train.device: {asked} asked for, but torch {torch.__version__} finds none here; "
            f"found: {found}. Use one of those, or auto"
        )
    return torch.device(asked)


Precision = Literal["fp32", "bf16"]

CUDNN_WITH_BF16 = 91300
"""cuDNN 9.13, the first whose LSTM takes bf16; with an older one torch would read word by word, many times
slower (torch's CUDAHooks.cpp, supportsBFloat16RNNWithCuDNN)."""


def resolve_precision(asked: Literal["fp32", "bf16", "auto"], device: torch.device) -> Precision:
    """Return the precision to train in: `auto` is bf16 where the device multiplies it in hardware.

    Raises UserError where bf16 is asked for by name and the device does not: with AVX-512 alone a step
    takes longer than in fp32, and without it oneDNN has no LSTM in bf16. On CUDA it also takes cuDNN 9.13.
    """
    if asked == "fp32":
        return asked
    if _multiplies_bf16(device):
        return "bf16"
    if asked == "bf16":
        what = "processor" if device.type == "cpu" else f"{device.type} device"
        older = ", or its cuDNN is older than 9.13" if device.type == "cuda" else ""
        raise UserError(
            f"train.precision: bf16 asked for, but this {what} does not multiply it{older}; use fp32 or auto"
        )
    return "fp32"


def _multiplies_bf16(device: torch.device) -> bool:
    match device.type:
        case "cpu":
            capabilities = torch.cpu.get_capabilities()
            return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
        case "cuda":
            cudnn = torch.backends.cudnn.version() or 0  # type: ignore[no-untyped-call]
            return cudnn >= CUDNN_WITH_BF16 and torch.cuda.is_bf16_supported(including_emulation=False)
        case _:
            return False


M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8
"""Options of glibc's mallopt (malloc.h)."""


def configure_allocator() -> None:
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

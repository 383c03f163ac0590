"""Which floating-point format the matrix products of training use."""

from typing import Literal

import torch

from sentiment.errors import UserError

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

"""Which floating-point format the matrix products of training use."""

from typing import Literal

import torch

Precision = Literal["fp32", "bf16"]


def resolve_precision(asked: Literal["fp32", "bf16", "auto"]) -> Precision:
    """Return the precision to train in: `auto` is bf16 where the processor multiplies it in hardware."""
    if asked != "auto":
        return asked
    capabilities = torch.cpu.get_capabilities()
    in_hardware = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return "bf16" if in_hardware else "fp32"

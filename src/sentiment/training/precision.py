"""Which floating-point format the matrix products of training use."""

from typing import Literal

import torch

from sentiment.errors import UserError

Precision = Literal["fp32", "bf16"]


def resolve_precision(asked: Literal["fp32", "bf16", "auto"]) -> Precision:
    """Return the precision to train in: `auto` is bf16 where the processor multiplies it in hardware.

    Raises UserError where bf16 is asked for by name and the processor does not: with AVX-512 alone a step
    takes longer than in fp32, and without it oneDNN has no LSTM in bf16.
    """
    if asked == "fp32":
        return asked
    capabilities = torch.cpu.get_capabilities()
    if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"):
        return "bf16"
    if asked == "bf16":
        raise UserError(
            "train.precision: bf16 asked for, but this processor does not multiply it; use fp32 or auto"
        )
    return "fp32"

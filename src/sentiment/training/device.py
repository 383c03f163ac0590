"""Which device trains."""

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

"""Where training runs, in which precision, and that what is not there is said before it starts."""

import pytest
import torch

from sentiment.errors import UserError
from sentiment.training.runtime import resolve_device, resolve_precision

CPU = torch.device("cpu")


def test_auto_takes_a_cuda_device_where_there_is_one() -> None:
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert resolve_device("cpu") == CPU


@pytest.mark.parametrize("asked", ["cuda", "mps"])
def test_device_that_is_not_there_is_refused_by_name(asked: str) -> None:
    if {"cuda": torch.cuda, "mps": torch.backends.mps}[asked].is_available():
        pytest.skip(f"{asked} is there")
    with pytest.raises(UserError, match=rf"train\.device: {asked} asked for.*found: cpu") as raised:
        resolve_device(asked)
    assert raised.value.exit_status == 2


def test_precision_by_name_is_taken_and_auto_is_one_of_the_two() -> None:
    assert resolve_precision("fp32", CPU) == "fp32"
    assert resolve_precision("auto", CPU) in {"fp32", "bf16"}
    assert resolve_precision("auto", torch.device("mps")) == "fp32"
    with pytest.raises(UserError, match="bf16 asked for, but this mps device does not multiply it"):
        resolve_precision("bf16", torch.device("mps"))


@pytest.mark.parametrize(
    ("cudnn", "supported", "precision"),
    [(91300, True, "bf16"), (91200, True, "fp32"), (None, True, "fp32"), (91300, False, "fp32")],
    ids=str,
)
def test_bf16_on_cuda_takes_the_device_and_its_lstm(
    cudnn: int | None, supported: bool, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answers of a CUDA device, which cannot be had here, stand in for it."""
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: cudnn)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: supported)
    assert resolve_precision("auto", torch.device("cuda")) == precision

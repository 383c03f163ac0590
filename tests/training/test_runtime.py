"""Selection of device and precision, and the errors if one is not available."""

import pytest
import torch

from sentiment.errors import UserError
from sentiment.training.runtime import resolve_device, resolve_precision

CPU = torch.device("cpu")


def test_auto_selects_a_cuda_device_if_available() -> None:
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert resolve_device("cpu") == CPU


@pytest.mark.parametrize("requested", ["cuda", "mps"])
def test_unavailable_device_is_an_error(requested: str) -> None:
    if {"cuda": torch.cuda, "mps": torch.backends.mps}[requested].is_available():
        pytest.skip(f"{requested} is available")
    with pytest.raises(
        UserError, match=rf"train\.device: {requested} is not available.*available: cpu"
    ) as raised:
        resolve_device(requested)
    assert raised.value.exit_status == 2


def test_precision_by_name_and_auto() -> None:
    assert resolve_precision("fp32", CPU) == "fp32"
    assert resolve_precision("auto", CPU) in {"fp32", "bf16"}
    assert resolve_precision("auto", torch.device("mps")) == "fp32"
    with pytest.raises(UserError, match="this mps device does not support bf16 in hardware"):
        resolve_precision("bf16", torch.device("mps"))


@pytest.mark.parametrize(
    ("cudnn", "supported", "precision"),
    [(91300, True, "bf16"), (91200, True, "fp32"), (None, True, "fp32"), (91300, False, "fp32")],
    ids=str,
)
def test_bf16_on_cuda_requires_device_and_cudnn_support(
    cudnn: int | None, supported: bool, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The properties of a CUDA device are mocked: tests run without one."""
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: cudnn)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: supported)
    assert resolve_precision("auto", torch.device("cuda")) == precision

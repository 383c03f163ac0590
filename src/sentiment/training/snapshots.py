"""Nested states on disk, each one safetensors file: tensors as they are, all else as JSON in its header.

One file, so that one rename makes all of it new at once. Reading it runs no code.
"""

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sentiment.outputs import replacing

TENSOR = "tensor"
"""In the JSON, `{"tensor": name}` stands where the tensor of that name was."""


class TornSnapshotError(Exception):
    """The file is not what was written."""


def write_snapshot(path: Path, state: Mapping[str, Any]) -> None:
    """Write a state; a kill or a power cut at any moment leaves the old file or the new one, whole.

    state: nested dictionaries with string keys, of tensors and of what JSON can say.
    """
    tensors: dict[str, Tensor] = {}
    rest = json.dumps(_separated(state, "", tensors))
    with replacing(path) as temporary:
        save_file(tensors, temporary, {"rest": rest, "checksum": _checksum(rest, tensors)})
        _flush(temporary)
    _flush(path.parent)


def read_snapshot(path: Path) -> dict[str, Any]:
    """Return the state, equal to the one written: floats to the last bit.

    Raises FileNotFoundError; TornSnapshotError where a byte is missing or differs.
    """
    if not path.exists():
        raise FileNotFoundError(path)
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            # Copies, aligned as torch aligns its own: the file need not stay mapped.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        if header["checksum"] != _checksum(header["rest"], tensors):
            raise TornSnapshotError(f"{path}: its checksum is another")
        return dict(_joined(json.loads(header["rest"]), tensors))
    except (SafetensorError, KeyError, ValueError) as error:
        raise TornSnapshotError(f"{path}: {error}") from None


def _separated(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Return `value` with tensors replaced by their names, and put the tensors into `tensors`."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach().cpu().contiguous()
        return {TENSOR: name}
    if isinstance(value, Mapping):
        return {key: _separated(item, f"{name}/{key}", tensors) for key, item in value.items()}
    return value


def _joined(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    if value.keys() == {TENSOR}:
        return tensors[value[TENSOR]]
    return {key: _joined(item, tensors) for key, item in value.items()}


def _checksum(rest: str, tensors: Mapping[str, Tensor]) -> str:
    checksum = zlib.crc32(rest.encode())
    for name, tensor in sorted(tensors.items()):
        checksum = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), checksum)
        checksum = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, checksum)
    return f"{checksum:08x}"


def _flush(path: Path) -> None:
    """Wait until a file, or a folder's list of files, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

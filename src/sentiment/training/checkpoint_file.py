"""Files of a checkpoint: states of tensors and JSON values, written atomically and verified when read."""

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

from sentiment.files import atomic_write

TENSOR_KEY = "tensor"
"""In the JSON part of a checkpoint file, the placeholder `{"tensor": name}` stands for a tensor."""


class CorruptCheckpointError(Exception):
    """A checkpoint file is corrupt or truncated, or belongs to another training run."""


def write_checkpoint_file(path: Path, state: Mapping[str, Any]) -> None:
    """Write a state atomically: after a kill or a power failure, the file is either the old or the new one.

    The state is a nested dictionary with string keys, whose values are tensors and JSON values.
    """
    content, tensors = split_state(state)
    with atomic_write(path) as temporary:
        save_file(tensors, temporary, {"content": content, "checksum": _compute_checksum(content, tensors)})
        _fsync(temporary)
    _fsync(path.parent)


def read_checkpoint_file(path: Path) -> dict[str, Any]:
    """Read a state that `write_checkpoint_file` has written; all floats are restored exactly.

    Raises:
        FileNotFoundError: the file does not exist.
        CorruptCheckpointError: the file is corrupt or truncated.
    """
    if not path.exists():
        raise FileNotFoundError(path)
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            # Clones are aligned as torch aligns its own tensors, and the file need not stay mapped.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        if header["checksum"] != _compute_checksum(header["content"], tensors):
            raise CorruptCheckpointError(f"{path}: the checksum does not match")
        return join_state(header["content"], tensors)
    except (SafetensorError, KeyError, ValueError) as error:
        raise CorruptCheckpointError(f"{path}: {error}") from None


def split_state(state: Mapping[str, Any]) -> tuple[str, dict[str, Tensor]]:
    """Split a nested dictionary of tensors and JSON values into JSON with placeholders and named tensors."""
    tensors: dict[str, Tensor] = {}
    return json.dumps(_extract_tensors(state, "", tensors)), tensors


def join_state(content: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Invert `split_state`."""
    return dict(json.loads(content, object_hook=lambda value: _insert_tensor(value, tensors)))


def _extract_tensors(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Return `value` with a placeholder in place of each tensor, and add the tensors to `tensors`."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach().cpu().contiguous()
        return {TENSOR_KEY: name}
    if isinstance(value, Mapping):
        return {key: _extract_tensors(item, f"{name}/{key}", tensors) for key, item in value.items()}
    return value


def _insert_tensor(value: dict[str, Any], tensors: Mapping[str, Tensor]) -> Any:
    """Return the tensor that a placeholder stands for; return any other JSON object unchanged."""
    return tensors[value[TENSOR_KEY]] if value.keys() == {TENSOR_KEY} else value


def _compute_checksum(content: str, tensors: Mapping[str, Tensor]) -> str:
    checksum = zlib.crc32(content.encode())
    for name, tensor in sorted(tensors.items()):
        checksum = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), checksum)
        checksum = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, checksum)
    return f"{checksum:08x}"


def _fsync(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

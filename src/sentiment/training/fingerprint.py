"""Fingerprint of a training run: the parameters, data, code and numerics that determine its weights."""

import hashlib
import json
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch

from sentiment.errors import UserError
from sentiment.params.model import ModelParams
from sentiment.params.train import TrainParams
from sentiment.tokens.batches import TrainingData
from sentiment.training.runtime import resolve_device, resolve_precision

ONEDNN_LEVELS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("SSE41", ("sse4_1",)),
    ("AVX", ("avx",)),
    ("AVX2", ("avx2",)),
    ("AVX2_VNNI", ("avx2", "avx_vnni")),
    ("AVX2_VNNI_2", ("avx2", "avx_vnni", "avx_vnni_int8", "avx_ne_convert")),
    ("AVX512_CORE", ("avx512_f", "avx512_bw", "avx512_vl", "avx512_dq")),
    ("AVX512_CORE_VNNI", ("avx512_f", "avx512_bw", "avx512_vl", "avx512_dq", "avx512_vnni")),
    ("AVX512_CORE_BF16", ("avx512_f", "avx512_bw", "avx512_vl", "avx512_dq", "avx512_vnni", "avx512_bf16")),
    ("AVX512_CORE_FP16", ("avx512_bf16", "avx512_fp16", "avx_vnni")),
    ("AVX512_CORE_AMX", ("avx512_fp16", "amx_tile", "amx_int8", "amx_bf16")),
    ("AVX512_CORE_AMX_FP16", ("avx512_fp16", "amx_tile", "amx_int8", "amx_bf16", "amx_fp16")),
)
"""oneDNN's instruction sets, lowest first: values of ONEDNN_MAX_CPU_ISA and the CPU flags that each requires.

The one in use is derived from this table, since torch does not export the C function that returns it.
"""

LEVEL_ALIASES = {"AVX10_1_512": "AVX512_CORE_FP16", "AVX10_1_512_AMX": "AVX512_CORE_AMX"}
"""Newer names of instruction sets in ONEDNN_LEVELS."""

MKL_VARIABLES = ("MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR")
"""Environment variables that limit the instruction sets of MKL, torch's library for matrix products. Their
defaults depend on the processor."""


def detect_instruction_sets() -> dict[str, str]:
    """Return the instruction sets that torch, oneDNN and MKL use, which determine how sums are rounded."""
    detected = {
        "processor": detect_processor_model(),
        "aten_capability": str(torch.backends.cpu.get_cpu_capability()),
        "onednn_isa": detect_onednn_isa(),
    }
    return detected | {name.lower(): os.environ[name] for name in MKL_VARIABLES if os.environ.get(name)}


def detect_onednn_isa() -> str:
    """Return the highest instruction set that oneDNN may use here, limited by ONEDNN_MAX_CPU_ISA if set.

    Returns `none` on processors other than x86.
    """
    capabilities = torch.cpu.get_capabilities()
    requested = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or ""
    limit = LEVEL_ALIASES.get(requested.upper(), requested.upper())
    best = "none"
    for name, required in ONEDNN_LEVELS:
        if all(capabilities.get(flag) for flag in required):
            best = name
        if name == limit:  # a value that is not in the table, such as DEFAULT, sets no limit
            break
    return best


@cache
def detect_processor_model() -> str:
    """Return the processor's model name, as the operating system reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


PACKAGE = Path(__file__).parents[1]

TRAINING_CODE = ("params", "tokens", "model", "training")
"""Packages whose code determines the weights. `data` affects them only through the token arrays, whose
digests are part of the fingerprint."""


@dataclass(frozen=True)
class TrainingFingerprint:
    """Fingerprint of a training run. Runs with equal fingerprints have bitwise equal weights.

    A run can resume from the checkpoint of another one only if both fingerprints are equal. `str()` returns
    one digest of both attributes.

    Attributes:
        inputs: digest of parameters, data and code.
        numerics: settings that determine how sums are rounded, keyed by name: versions, device,
            instruction sets.
    """

    inputs: str
    numerics: Mapping[str, str]

    def __str__(self) -> str:
        return _md5(json.dumps([self.inputs, dict(self.numerics)], sort_keys=True).encode())

    def describe_differences(self, numerics: Mapping[str, str]) -> list[str]:
        """Describe how the numerics of an earlier run with the same inputs differ from those of this run."""
        names = sorted({*numerics, *self.numerics})
        return [
            f"{name} was {numerics.get(name, 'not set')}, is {self.numerics.get(name, 'not set')}"
            for name in names
            if numerics.get(name) != self.numerics.get(name)
        ]


def compute_fingerprint(
    model: ModelParams,
    params: TrainParams,
    reviews: TrainingData,
    package: Path = PACKAGE,
) -> TrainingFingerprint:
    """Compute the fingerprint of a training run.

    Args:
        model: architecture of the model.
        params: training parameters.
        reviews: training data; the unlabelled reviews count only if the training uses them.
        package: folder of the `sentiment` package.

    Raises:
        UserError: the requested device or precision is not available.
    """
    splits = reviews.select_splits(unlabelled=params.unlabelled != "ignore")
    content = {
        "model": model.model_dump(),
        "train": params.model_dump(),
        "vocabulary_size": reviews.vocabulary_size,
        "data": [split.digest for split in splits.values()],
        "code": compute_code_digest(package),
    }
    return TrainingFingerprint(_md5(json.dumps(content, sort_keys=True).encode()), collect_numerics(params))


def collect_numerics(params: TrainParams) -> dict[str, str]:
    """Collect the settings that determine how the sums of a training run are rounded, keyed by name.

    Raises:
        UserError: the requested device or precision is not available.
    """
    device = resolve_device(params.device)
    numerics = {
        "torch": torch.__version__,
        "numpy": np.__version__,  # its random generator shuffles the batches
        "device": device.type,
        "precision": resolve_precision(params.precision, device),
        **detect_instruction_sets(),
    }
    if device.type == "cuda":
        numerics["gpu"] = torch.cuda.get_device_name(device)
    return numerics


def compare_numerics(node: Mapping[str, str], driver: Mapping[str, str]) -> str:
    """Describe how a node of a cluster rounds sums in another way than the driver; empty if it does not.

    Args:
        node: result of `collect_numerics` on the node.
        driver: the same on the driver.

    Raises:
        UserError: the node trains on another device or with another precision.
    """
    differences = "; ".join(
        f"{name} is {node.get(name)}, {value} on the driver"
        for name, value in driver.items()
        if node.get(name) != value
    )
    if any(node.get(name) != driver.get(name) for name in ("device", "precision")):
        raise UserError(
            f"Ray: a node differs from the driver: {differences}; set train.device and train.precision, or "
            "run the driver on a node that is like those that train"
        )
    return differences


def compute_code_digest(package: Path, parts: Iterable[str] = TRAINING_CODE) -> str:
    """Compute a digest of the source files in `parts`, which are folders and files below `package`."""
    folders = [package / part for part in parts]
    files = sorted(path for part in folders for path in (part.rglob("*.py") if part.is_dir() else [part]))
    listing = [f"{path.relative_to(package).as_posix()} {_md5(path.read_bytes())}" for path in files]
    return _md5("\n".join(listing).encode())


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()

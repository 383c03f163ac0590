"""What decides the result of a training run, as one key."""

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
"""oneDNN's instruction sets, lowest first, by the names that ONEDNN_MAX_CPU_ISA takes, and what each needs.

oneDNN has no Python call for the one that it uses, and torch does not export the C function.
"""

SAME_LEVEL = {"AVX10_1_512": "AVX512_CORE_FP16", "AVX10_1_512_AMX": "AVX512_CORE_AMX"}
"""Later names of the same sets."""

MKL_VARIABLES = ("MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR")
"""Limit MKL, which multiplies matrices. It chooses by maker and model of the processor: both are part too."""


def detect_instruction_sets() -> dict[str, str]:
    """Return which instructions torch, oneDNN and MKL compute with; equal where sums are rounded alike."""
    found = {
        "processor": processor_model(),
        "aten_capability": str(torch.backends.cpu.get_cpu_capability()),
        "onednn_isa": onednn_isa(),
    }
    return found | {name.lower(): os.environ[name] for name in MKL_VARIABLES if os.environ.get(name)}


def onednn_isa() -> str:
    """Return the instruction set that oneDNN uses at most here, within ONEDNN_MAX_CPU_ISA where that is set.

    `none` where the processor has none of them, as one that is not x86.
    """
    has = torch.cpu.get_capabilities()
    asked = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or ""
    limit = SAME_LEVEL.get(asked.upper(), asked.upper())
    best = "none"
    for name, needed in ONEDNN_LEVELS:
        if all(has.get(flag) for flag in needed):
            best = name
        if name == limit:  # any other value, and DEFAULT, limits nothing
            break
    return best


@cache
def processor_model() -> str:
    """Return the processor's name, as the system has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


PACKAGE = Path(__file__).parents[1]

DECIDING = ("params", "tokens", "model", "training")
"""Parts of the package whose code decides the weights; reviews has done its work once there are tokens."""


@dataclass(frozen=True)
class TrainingFingerprint:
    """What two runs share where one may resume from the other's state, bit for bit.

    recipe: digest of parameters, data and code. arithmetic: by name, what decides how sums are rounded.
    As a string it is one digest of both.
    """

    recipe: str
    arithmetic: Mapping[str, str]

    def __str__(self) -> str:
        return _md5(json.dumps([self.recipe, dict(self.arithmetic)], sort_keys=True).encode())

    def differences(self, arithmetic: Mapping[str, str]) -> list[str]:
        """Say in what the arithmetic of another run of this recipe differs: `name there, here`."""
        names = sorted({*arithmetic, *self.arithmetic})
        return [
            f"{name} was {arithmetic.get(name, 'not set')}, is {self.arithmetic.get(name, 'not set')}"
            for name in names
            if arithmetic.get(name) != self.arithmetic.get(name)
        ]


def compute_fingerprint(
    model: ModelParams,
    params: TrainParams,
    reviews: TrainingData,
    package: Path = PACKAGE,
) -> TrainingFingerprint:
    """Return the key of a training.

    Two trainings share it where they have the same parameters, data and code, and the same arithmetic:
    versions of torch and numpy, precision that `auto` comes to, device, threads that share a sum, processor
    and instruction sets. package: where the code lies.
    """
    used = reviews.select_splits(unlabelled=params.unlabelled != "ignore")
    content = {
        "model": model.model_dump(),
        "train": params.model_dump(),
        "vocabulary_size": reviews.vocabulary_size,
        "data": [split.digest for split in used.values()],
        "code": compute_code_digest(package),
    }
    return TrainingFingerprint(_md5(json.dumps(content, sort_keys=True).encode()), arithmetic(params))


def arithmetic(params: TrainParams) -> dict[str, str]:
    """Return, by name, what decides how a training's sums are rounded.

    Raises UserError where the device or precision asked for is not there.
    """
    device = resolve_device(params.device)
    found = {
        "torch": torch.__version__,
        "numpy": np.__version__,  # it draws the order of the batches
        "device": device.type,
        "precision": resolve_precision(params.precision, device),
        "threads": str(torch.get_num_threads()),
        **detect_instruction_sets(),
    }
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def compute_code_digest(package: Path, parts: Iterable[str] = DECIDING) -> str:
    """Return a digest of the source files in `parts`, folders or files, by their names below `package`."""
    folders = [package / part for part in parts]
    files = sorted(path for part in folders for path in (part.rglob("*.py") if part.is_dir() else [part]))
    listing = [f"{path.relative_to(package).as_posix()} {_md5(path.read_bytes())}" for path in files]
    return _md5("\n".join(listing).encode())


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()

"""Which processor computes, and with which instructions: they decide how a sum is rounded."""

import os
import platform
from functools import cache
from pathlib import Path

import torch

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


def instruction_sets() -> dict[str, str]:
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

"""Where a model trains and in which numbers: the device, the type of its products, and its peak speed."""

from __future__ import annotations

import re
import time
from contextlib import AbstractContextManager

import torch

from audiogen_core.devices import absent, check
from audiogen_minigpt.config import check_choice

DTYPES = ("auto", "float32", "bfloat16")

# Dense bfloat16 products per second, from the makers' data sheets.
CUDA_PEAKS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
    "RTX 5090": 210e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """A device by name; "auto" is CUDA where there is one, else the CPU. Raises OptionError."""
    check(name)
    cuda, metal = torch.cuda.is_available(), torch.backends.mps.is_available()
    kind, _, number = name.partition(":")
    if kind == "auto":
        kind = "cuda" if cuda else "cpu"
    elif kind == "gpu":
        kind = "cuda" if cuda or not metal else "mps"
    if kind == "cuda":
        index = int(number) if number else local_rank
        if not cuda or index >= torch.cuda.device_count():
            raise absent(name, "torch")
        return torch.device("cuda", index)
    if kind == "mps" and not metal:
        raise absent(name, "torch")
    return torch.device(kind)


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The type matrix products are done in; weights and sums stay float32.

    "auto" is bfloat16 on CUDA from Ampere on and on CPUs with instructions for it, else float32.
    """
    check_choice("dtype", name, DTYPES)
    if name != "auto":
        return torch.bfloat16 if name == "bfloat16" else torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float32
    return torch.bfloat16 if device.type == "cpu" and _cpu_has_bfloat16() else torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """A context in which matrix products run in `dtype`."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Floating point operations per second at best: from a table on CUDA, else measured in a moment."""
    if device.type == "cuda" and dtype == torch.bfloat16:
        words = set(re.split(r"[\s-]", torch.cuda.get_device_name(device)))
        for name, peak in CUDA_PEAKS.items():
            if words.issuperset(name.split()):
                return peak
    return measure_flops(device, dtype)


def measure_flops(device: torch.device, dtype: torch.dtype, size: int = 1024, seconds: float = 0.15) -> float:
    """The speed of a square matrix product: the best of the rounds that fit into `seconds`."""
    a = torch.ones(size, size, device=device, dtype=dtype)
    best, begin = float("inf"), time.perf_counter()
    while time.perf_counter() - begin < seconds:
        synchronize(device)
        start = time.perf_counter()
        a @ a
        synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2.0 * size**3 / best


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _cpu_has_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 in hardware (AVX-512 BF16 or AMX): 1.8 times float32 and more."""
    facts = torch.cpu.get_capabilities()
    return bool(facts.get("avx512_bf16") or facts.get("amx_bf16"))

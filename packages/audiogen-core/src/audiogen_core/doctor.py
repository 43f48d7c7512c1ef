"""What this machine has, for reports of trouble: the facts that `audiogen-core doctor` shows."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

REQUIRED = ("numpy", "soundfile", "soxr", "safetensors", "huggingface-hub", "typer", "rich", "pyyaml")
SIBLINGS = ("audiogen-core", "audiogen-mlx", "audiogen-onnx", "audiogen-minigpt")
OPTIONAL = {
    "torch": ('pip install "audiogen-core[torch]"', "encode and decode with --ops torch"),
    "matplotlib": ('pip install "audiogen-core[plot]"', "plot"),
}
"""Distribution -> (install line, what needs it)."""

_CPU_FEATURES = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16")


def report() -> dict[str, Any]:
    """Versions, optional parts, devices, the cache of models, and what is wrong, if anything."""
    import soundfile

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: installed(name) for name in (*SIBLINGS, *REQUIRED)},
        "libsndfile": soundfile.__libsndfile_version__,
        "optional": {
            name: {"version": installed(name), "needed_for": use, "install": line}
            for name, (line, use) in OPTIONAL.items()
        },
        "cpu": {"cores": os.cpu_count(), "features": [*cpu_features()]},
        "devices": devices(),
        "cache": cache(),
        "problems": [*problems()],
    }


def installed(name: str) -> str | None:
    """The version of a distribution, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def cpu_features() -> Iterator[str]:
    """The instructions that speed networks up, of those this processor says it has (Linux)."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    lines = [line for line in text.splitlines() if line.lower().startswith(("flags", "features"))]
    flags = set(lines[0].split()) if lines else set()
    yield from (name for name in _CPU_FEATURES if name in flags)


def devices() -> list[str]:
    """What `--ops` may be given here."""
    found = ["numpy"]
    if installed("torch") is None:
        return found
    try:
        import torch
    except (ImportError, OSError) as error:
        return [*found, f"torch is installed but does not start: {error}"]
    found.append("torch")
    for index in range(torch.cuda.device_count()):
        found.append(f"torch:cuda:{index} ({torch.cuda.get_device_name(index)})")
    if torch.backends.mps.is_available():
        found.append("torch:mps")
    return found


def cache() -> dict[str, Any]:
    """Where models are kept (HF_HOME), how much is there, and how much room is left. Bytes."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE)
    return {
        "folder": str(folder),
        "bytes": sum(path.lstat().st_size for path in folder.glob("*/blobs/*") if path.is_file()),
        "free_bytes": _free(_existing(folder)),
        "offline": bool(constants.HF_HUB_OFFLINE),
    }


def problems() -> Iterator[str]:
    """Sentences about what will not work."""
    from huggingface_hub import constants

    for name in REQUIRED:
        if installed(name) is None:
            yield f"{name} is not installed; install audiogen-core again"
    place = _existing(Path(constants.HF_HUB_CACHE))
    if not os.access(place, os.W_OK):
        yield f"{place} cannot be written to, so no model can be fetched; set HF_HOME to another folder"
    if _free(place) < 1e9:
        yield f"less than 1 GB is free at {place}; set HF_HOME to a folder on another disk"


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def _existing(folder: Path) -> Path:
    """The folder, or the first above it that exists."""
    while not folder.exists():
        folder = folder.parent
    return folder

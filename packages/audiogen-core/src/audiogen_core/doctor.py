"""What this machine has and what each command needs: the facts that the `doctor` of every package shows.

A package describes itself as a `Subject`; `examine` finds the facts, in the same shape for all.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from audiogen_core import jobs

SIBLINGS = {
    "audiogen-core": "encode, decode, check, plot, compose, replay, studio",
    "audiogen-mlx": "musicgen, stable-audio, stable-audio-3, convert",
    "audiogen-onnx": "vamp, export, quantize",
    "audiogen-minigpt": "run, train, generate, eval",
}
"""The packages of the family, and some of their commands."""


@dataclass(frozen=True)
class Extra:
    """A distribution that is not always there: the line that installs it, and what needs it.

    for_commands  the commands, or commands with an option, that need it
    """

    install: str
    for_commands: tuple[str, ...]


@dataclass(frozen=True)
class Subject:
    """What a package needs, for its doctor.

    package   the distribution
    required  distributions that it cannot do without
    optional  those that some commands need
    commands  its commands beside those of its jobs, in the order shown
    """

    package: str
    required: tuple[str, ...]
    optional: Mapping[str, Extra]
    commands: tuple[str, ...]


CORE = Subject(
    "audiogen-core",
    ("numpy", "soundfile", "soxr", "safetensors", "huggingface-hub", "click", "rich", "pyyaml"),
    {
        "torch": Extra('pip install "audiogen-core[torch]"', ("encode --ops torch", "decode --ops torch")),
        "matplotlib": Extra('pip install "audiogen-core[plot]"', ("plot -o",)),
        "sounddevice": Extra('pip install "audiogen-core[play]"', ("decode --play", "replay --play")),
        "av": Extra('pip install "audiogen-core[ffmpeg]"', ("encode IN.m4a",)),
        "ray": Extra('pip install "audiogen-core[ray]"', ("encode --engine ray",)),
        "fastapi": Extra('pip install "audiogen-core[studio]"', ("serve", "studio")),
    },
    (
        *("encode", "decode", "replay", "check", "info", "plot", "codecs", "models", "verify"),
        *("compose", "serve", "studio"),
    ),
)

_CPU_FEATURES = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16")


def report() -> dict[str, Any]:
    """What `audiogen-core doctor` shows."""
    import soundfile

    return examine(CORE, devices(), libsndfile=soundfile.__libsndfile_version__)


def examine(subject: Subject, accelerators: list[str], **more: Any) -> dict[str, Any]:
    """Versions, optional parts, devices, the cache, what each command needs, and what is wrong, if anything.

    accelerators  what the package can compute on here
    more          facts of the package's own, shown before the commands
    """
    return {
        "package": subject.package,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: installed(name) for name in (*SIBLINGS, *subject.required)},
        "optional": {
            name: {
                "version": installed(name),
                "needed_for": ", ".join(extra.for_commands),
                "install": extra.install,
            }
            for name, extra in subject.optional.items()
        },
        "cpu": {"cores": os.cpu_count(), "features": [*cpu_features()]},
        "devices": accelerators,
        "cache": cache(),
        **more,
        "commands": dict(commands(subject)),
        "problems": [*problems(subject)],
    }


def commands(subject: Subject) -> Iterator[tuple[str, str]]:
    """Each command of a package and of its siblings: "ready", or what is missing and how to get it."""
    missing = [name for name in subject.required if installed(name) is None]
    ready = f"needs {', '.join(missing)}: pip install {subject.package}" if missing else "ready"
    own = {job.name: job for job in jobs.every() if job.package == subject.package}
    for name in names(subject):
        here = missing or name not in own or any(entry.here for entry in own[name].models())
        yield f"{subject.package} {name}", ready if here else to_fetch(f"{subject.package} models")
    lines: dict[str, str] = {}
    for distribution, extra in subject.optional.items():
        for name in extra.for_commands:
            absent = installed(distribution) is None
            lines[name] = f"needs {distribution}: {extra.install}" if absent else lines.get(name, ready)
    yield from ((f"{subject.package} {name}", line) for name, line in lines.items())
    for sibling, some in SIBLINGS.items():
        if sibling != subject.package:
            absent = installed(sibling) is None
            advice = f"not installed ({some}): pip install {sibling}"
            yield sibling, advice if absent else f"ready ({some}); see {sibling} doctor"


def to_fetch(lists: str) -> str:
    """What is said of a command that has all packages and no model; `lists` shows which there are."""
    return f"no model of it is here yet: one is fetched when it is first used; {lists} shows which"


def names(subject: Subject) -> list[str]:
    """The commands of a package: its jobs, as they describe themselves, and the others."""
    return [*(job.name for job in jobs.every() if job.package == subject.package), *subject.commands]


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


def problems(subject: Subject = CORE) -> Iterator[str]:
    """Sentences about what will not work."""
    from huggingface_hub import constants

    for name in subject.required:
        if installed(name) is None:
            yield f"{name} is not installed; install {subject.package} again"
    for package, reason in jobs.broken(imports=False).items():
        yield f"{package} is installed, but its jobs cannot be read: {reason}"
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

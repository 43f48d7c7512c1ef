"""Which training a folder is of, for whoever is given one of another package or kind."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from audiogen_core.errors import ModelError
from audiogen_core.settings import read_json

ADAPTER = "adapter"
"""Where in a run of `tune` what it learned is."""

_TRAINED = {"data", "run", "codec"}
_TUNED = {"folder", "model", "steps", "cooldown"}
"""Settings that only the one and the other have, in a run's config.json."""


@dataclass(frozen=True)
class Run:
    """A folder of a training.

    package  whose it is
    use      what it is, and the command that uses it, as a sentence that begins with the folder
    adapter  of `tune`: what was learned, if it is there
    """

    package: str
    use: str
    adapter: Path | None = None


def run_in(folder: Path) -> Run | None:
    """The training that a folder is of; None for any other folder, and for a file."""
    config = folder / "config.json"
    if not config.is_file():
        return None
    try:
        settings = read_json(config)
    except ModelError:  # whoever reads it says what is wrong
        return None
    named = shlex.quote(str(folder))
    if settings.keys() >= _TRAINED:
        command = f"audiogen-minigpt generate -m {named}"
        return Run("audiogen-minigpt", f"{folder}: is a run of audiogen-minigpt; use it with: {command}")
    if not settings.keys() >= _TUNED:
        return None
    package, job = ("audiogen-mlx", "musicgen") if "rank" in settings else ("audiogen-onnx", "vamp")
    model = settings["model"]
    command = f"{package} {job} -m {shlex.quote(str(model))} --lora {named}"
    told = f"{folder}: is a LoRA of {package} tune, beside {model}; use it with: {command}"
    adapter = folder / ADAPTER
    return Run(package, told, adapter if adapter.is_dir() else None)

"""Playing clips and audio files on the machine's loudspeakers, by sounddevice (extra `play`)."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from audiogen_core.errors import MissingDependency, OptionError
from audiogen_core.spectrum import Clip

INSTALL = 'pip install "audiogen-core[play]"'


def library() -> Any:
    """The module sounddevice. Raises MissingDependency when it, or the PortAudio it needs, is not there."""
    try:
        return import_module("sounddevice")
    except ImportError as error:
        raise MissingDependency("sounddevice", INSTALL) from error
    except OSError as error:
        raise MissingDependency("PortAudio, which sounddevice plays by,", "the system's packages") from error


def play(clip: Clip, path: str | Path | None = None) -> None:
    """Play a clip to its end.

    path  of the file it was read from, which messages name

    Raises OptionError when no device takes it, MissingDependency.
    """
    device = library()
    try:
        device.play(clip.samples.T, clip.sample_rate, blocking=True)
    except device.PortAudioError as error:
        kept = "" if path is None else "; the file itself is complete"
        raise OptionError(f"{path or clip}: cannot be played ({error}){kept}") from error

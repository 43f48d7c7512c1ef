"""Playing clips and audio files on the machine's loudspeakers, by sounddevice (extra `play`)."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from audiogen_core.audio import Audio
from audiogen_core.errors import MissingDependency, OptionError

INSTALL = 'pip install "audiogen-core[play]"'


def library() -> Any:
    """The module sounddevice. Raises MissingDependency when it, or the PortAudio it needs, is not there."""
    try:
        return import_module("sounddevice")
    except ImportError as error:
        raise MissingDependency("sounddevice", INSTALL) from error
    except OSError as error:
        raise MissingDependency("PortAudio, which sounddevice plays by,", "the system's packages") from error


def play(clip: Audio | str | Path) -> None:
    """Play a clip or a file to its end.

    Raises OptionError when no device takes it, AudioError for a bad file, MissingDependency.
    """
    device = library()
    audio = clip if isinstance(clip, Audio) else Audio.load(clip)
    try:
        device.play(audio.samples.T, audio.sample_rate, blocking=True)
    except device.PortAudioError as error:
        kept = "" if isinstance(clip, Audio) else "; the file itself is complete"
        raise OptionError(f"{clip}: cannot be played ({error}){kept}") from error

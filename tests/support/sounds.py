"""Synthetic sound and sound files for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from audiogen_core.audio import Audio

FILES = {
    "pcm8.wav": "PCM_U8",
    "pcm16.wav": "PCM_16",
    "pcm24.wav": "PCM_24",
    "float.wav": "FLOAT",
    "double.wav": "DOUBLE",
    "pcm16.aiff": "PCM_16",
    "pcm16.flac": "PCM_16",
    "vorbis.ogg": "VORBIS",
    "opus.opus": "OPUS",
    "layer3.mp3": "MPEG_LAYER_III",
}
"""File name -> how libsndfile stores the samples: ten formats that are read."""

FORMATS = {".wav": "WAV", ".aiff": "AIFF", ".flac": "FLAC", ".ogg": "OGG", ".opus": "OGG", ".mp3": "MP3"}


def tone(
    seconds: float = 0.5, *, sample_rate: int = 48_000, channels: int = 1, level: float = 0.4, seed: int = 0
) -> Audio:
    """A chord with a little noise, different in each channel."""
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    rng = np.random.default_rng(seed)
    rows = [
        0.7 * np.sin(2 * np.pi * 220 * (channel + 1) * time)
        + 0.2 * np.sin(2 * np.pi * 277.2 * (channel + 1) * time)
        + 0.1 * rng.uniform(-1, 1, len(time))
        for channel in range(channels)
    ]
    return Audio(level * np.stack(rows).astype(np.float32), sample_rate)


def write_reference(
    path: Path, audio: Audio, subtype: str, *, form: str | None = None, comment: str = ""
) -> Path:
    """Write a file with soundfile alone, so that reading is tested against another writer."""
    import soundfile

    with soundfile.SoundFile(
        path, "w", audio.sample_rate, audio.channels, subtype, format=form or FORMATS[path.suffix]
    ) as file:
        if comment:
            file.comment = comment
        file.write(audio.samples.T)
    return path

"""A clip as a piece of HTML: its waveform and a player, complete in itself, for notebooks and reports."""

from __future__ import annotations

import base64
import io
from html import escape

import numpy as np

from audiogen_core.sound_reader import Floats
from audiogen_core.spectrum import Clip

LONGEST = 600.0
"""Seconds that are embedded, at most: ten minutes of 44.1 kHz stereo are some 80 MB of page."""

_RATE = 48_000  # Hz; browsers play no FLAC of much more
_COLUMNS, _HEIGHT = 800, 80  # of the waveform, in its own units


def html(audio: Clip, title: str = "") -> str:
    """The clip as one `<figure>`: what it is, its waveform, and a player with the sound inside (16-bit FLAC).

    Channels beyond two are mixed to stereo for the player, and of a clip above ten minutes only the waveform
    is shown, with a sentence.
    """
    caption = escape(f"{title}: {audio.summary}" if title else audio.summary)
    sound = (
        f'<audio controls preload="metadata" style="width:100%" src="{_data(audio)}"></audio>'
        if audio.duration <= LONGEST
        else "<p>longer than ten minutes: save it to hear it</p>"
    )
    return (
        '<figure style="margin:0;max-width:50em">'
        f'<figcaption style="font:0.85em monospace">{caption}</figcaption>{_waveform(audio)}{sound}</figure>'
    )


def _data(audio: Clip) -> str:
    import soundfile

    heard = audio if audio.channels <= 2 else audio.mix(2)
    heard = heard if heard.sample_rate <= _RATE else heard.resample(_RATE)
    file = io.BytesIO()
    samples = np.clip(heard.samples.T, -1.0, 1.0)
    soundfile.write(file, samples, heard.sample_rate, format="FLAC", subtype="PCM_16")
    return "data:audio/flac;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _waveform(audio: Clip) -> str:
    """The range of the samples of all channels over time, as SVG in the colour of the text."""
    high, low = envelope(audio.samples, _COLUMNS)
    middle = _HEIGHT / 2
    scale = middle / max(1.0, audio.peak)
    top = [f"{x},{middle - scale * value:.1f}" for x, value in enumerate(high)]
    bottom = [f"{x},{middle - scale * value + 0.5:.1f}" for x, value in enumerate(low)]
    points = " ".join(top + bottom[::-1])
    return (
        f'<svg viewBox="0 0 {len(high)} {_HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="waveform" style="width:100%;height:5em;display:block">'
        f'<polygon points="{points}" fill="currentColor" opacity="0.7"/></svg>'
    )


def envelope(samples: Floats, columns: int) -> tuple[Floats, Floats]:
    """The highest and the lowest of (channels, n) in each of at most so many stretches of time."""
    count = samples.shape[1]
    starts = np.arange(min(columns, count)) * count // min(columns, count)
    high = np.maximum.reduceat(samples, starts, axis=1).max(axis=0)
    low = np.minimum.reduceat(samples, starts, axis=1).min(axis=0)
    return high, low

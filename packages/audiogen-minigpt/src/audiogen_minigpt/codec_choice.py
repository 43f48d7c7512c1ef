"""Which codec suits a folder of audio: the demo codec for what it can give back, else one that is fetched."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from audiogen_core import codecs
from audiogen_core.audio import Audio, stream
from audiogen_core.codec import Codec
from audiogen_core.dataset import scan
from audiogen_core.errors import AudioError, DownloadError
from audiogen_core.models import Fetch
from audiogen_core.training.signals import Stop

ROUGH = 6.0
"""dB that a codec's sound must lie above its error (SI-SDR, the median of some excerpts) to suit a folder."""

FETCHED = "encodec-24khz"
"""The codec that is fetched for recordings which the demo codec does not suit."""

_RATE = 24_000  # Hz, of the excerpts
_SECONDS = 2.0  # of each
_BEFORE = 8.0  # seconds of a file after which the excerpt ends: music has begun by then
_COUNT = 5
_QUIET = 0.01  # peak of an excerpt that tells nothing

Floats = NDArray[np.float32]
Item = TypeVar("Item")


def choose_codec(
    folder: Path, asked: str | None, notify: Callable[[str], None], fetch: Fetch | None, stop: Stop
) -> tuple[str, float]:
    """The codec for a folder, and the seconds that it takes for one of audio on one core.

    asked   the codec, when that is settled; None: the demo codec where it suits, else EnCodec where that can
            be had. A sentence says which and why
    """
    if not folder.is_dir():
        return asked or "demo", 0.0  # which `encode` says
    excerpts = _excerpts(folder, stop)
    if asked is not None:
        return asked, _fidelity(codecs.load_codec(asked, fetch=fetch), excerpts)[1]
    demo, pace = _fidelity(codecs.load_codec("demo", fetch=fetch), excerpts)
    if demo is None or demo >= ROUGH:
        return "demo", pace
    notify(
        f"the demo codec, made for composed music, gives these recordings back with {demo:.0f} dB (music it "
        f"knows: 10 to 15), so {FETCHED} is taken, which is fetched once where it is not here"
    )
    try:
        return FETCHED, _fidelity(codecs.load_codec(FETCHED, fetch=fetch), excerpts)[1]
    except DownloadError as error:
        notify(
            f"{FETCHED} cannot be had ({error}); the demo codec is used instead: expect blurred, rough "
            "sound, the outline of melody and beat at best. With a network, a new run takes EnCodec"
        )
        return "demo", pace


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """At most so many of some items: the first, the last, and some between."""
    if len(items) <= count:
        return list(items)
    return [items[round(index * (len(items) - 1) / (count - 1))] for index in range(count)]


def _excerpts(folder: Path, stop: Stop) -> list[Floats]:
    """Some seconds of some files that can be read, none of them silent: (1, samples)."""
    found: list[Floats] = []
    for name in spread(scan(folder)[0], 3 * _COUNT):
        stop.check()
        if len(found) == _COUNT:
            break
        blocks, length = [], 0
        try:
            for block in stream(folder / name, sample_rate=_RATE, channels=1):
                blocks.append(block)
                length += block.shape[1]
                if length > _BEFORE * _RATE:
                    break
        except (AudioError, OSError):  # which is told when the file is looked at as a whole
            continue
        part = np.concatenate(blocks, axis=1)[:, -round(_SECONDS * _RATE) :] if blocks else np.zeros((1, 0))
        if part.shape[1] > _RATE / 2 and np.abs(part).max() > _QUIET:
            found.append(np.asarray(part, np.float32))
    return found


def _fidelity(codec: Codec, excerpts: Sequence[Floats], codebooks: int = 4) -> tuple[float | None, float]:
    """How far a codec's sound lies above its error in dB (SI-SDR), and the seconds it takes for one of audio.

    The first is the median of the excerpts, None without any.
    """
    values, took, length = [], 0.0, 0.0
    for samples in excerpts:
        clip = Audio(samples, _RATE).resample(codec.info.sample_rate).mix(codec.info.channels)
        began = time.perf_counter()
        codes = codec.encode(clip, min(codebooks, codec.info.codebooks))
        took += time.perf_counter() - began
        length += clip.duration
        given, back = clip.samples.ravel(), codec.decode(codes).samples.ravel()
        shadow = given * float(back @ given) / float(given @ given)
        error = float(((back - shadow) ** 2).sum())
        values.append(10 * np.log10(float(shadow @ shadow) / max(error, 1e-12)))
    return (float(np.median(values)) if values else None), took / length if length else 0.0

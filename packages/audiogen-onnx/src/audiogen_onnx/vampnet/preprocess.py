"""Sound as VampNet's codec wants it, and back: rate, channels, loudness, length."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from audiogen_core.audio import Audio
from audiogen_core.errors import AudioMismatch, OptionError
from audiogen_onnx.vampnet.loudness import SILENCE, gain_to, loudness
from audiogen_onnx.vampnet.resample import resample

LOUDNESS = -24.0
"""LUFS that the codec was trained on."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """A clip as the codec wants it, and what is needed to undo that.

    audio          at the codec's rate, LUFS -24 unless that would clip, padded to whole frames
    length         samples of it before the padding
    loudness       LUFS of the clip at the codec's rate, before it was changed
    gain           factor by which its samples were multiplied
    source_rate    Hz
    source_length  samples
    """

    audio: Audio
    length: int
    loudness: float
    gain: float
    source_rate: int
    source_length: int


def prepare(audio: Audio, *, sample_rate: int, hop_length: int, mono: bool = True) -> Prepared:
    """A clip resampled, mixed, brought to -24 LUFS, kept within [-1, 1] and padded, in this order.

    mono  mix to one channel, as the original; otherwise the channels stay, and share one gain

    Raises AudioError when the clip is too short to be resampled.
    """
    samples = resample(audio.samples, audio.sample_rate, sample_rate)
    if mono and len(samples) > 1:
        samples = samples.mean(axis=0, keepdims=True)
    clip = Audio(samples, sample_rate)
    measured = loudness(clip)
    gain = gain_to(LOUDNESS, measured)
    if clip.peak * gain > 1:
        gain = 1 / clip.peak
    length = samples.shape[1]
    padded = np.zeros((len(samples), -(-length // hop_length) * hop_length), np.float32)
    np.multiply(samples, np.float32(gain), out=padded[:, :length])
    return Prepared(
        Audio(padded, sample_rate), length, measured, gain, audio.sample_rate, audio.samples.shape[1]
    )


def restore(
    made: Audio, prepared: Prepared, *, sample_rate: int | None = None, seconds: float | None = None
) -> Audio:
    """A generated clip at the loudness and, as far as it reaches, the length of the clip it was made from.

    sample_rate  of the result, Hz; None: the source's
    seconds      of the result; None: the source's exact length

    Where one of both clips is silent the samples stay as they are. Where the loudness asked for would clip,
    the peak is 1 or what it was before, whichever is higher. A clip that is too short is filled with silence
    at its end.
    Raises AudioMismatch when the clip is not at the codec's rate, OptionError when no sample is asked for.
    """
    if made.sample_rate != prepared.audio.sample_rate:
        raise AudioMismatch(
            f"the clip is at {made.sample_rate} Hz, but it was prepared at {prepared.audio.sample_rate} Hz"
        )
    rate = prepared.source_rate if sample_rate is None else sample_rate
    length = _length(prepared, rate) if seconds is None else round(seconds * rate)
    if length < 1:
        raise OptionError(f"a clip of {seconds} seconds at {rate} Hz has no samples")
    samples = resample(made.samples * np.float32(_restoring_gain(made, prepared)), made.sample_rate, rate)
    samples = samples[:, :length]
    return Audio(np.pad(samples, ((0, 0), (0, length - samples.shape[1]))), rate)


def _length(prepared: Prepared, rate: int) -> int:
    if rate == prepared.source_rate:
        return prepared.source_length
    return max(1, round(prepared.source_length * rate / prepared.source_rate))


def _restoring_gain(made: Audio, prepared: Prepared) -> float:
    measured = loudness(made)
    if SILENCE in (measured, prepared.loudness):
        return 1.0
    limit = max(1.0, prepared.audio.peak / prepared.gain)
    return min(gain_to(prepared.loudness, measured), limit / made.peak)

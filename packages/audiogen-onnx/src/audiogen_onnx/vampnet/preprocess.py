"""Sound as VampNet's codec wants it, and back: rate, channels, loudness, length."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from audiogen_core.audio import Audio
from audiogen_core.errors import AudioMismatch, OptionError
from audiogen_onnx.manifest import LOUDNESS
from audiogen_onnx.vampnet.loudness import SILENCE, gain_to, loudness
from audiogen_onnx.vampnet.resample import resample


def gain_in(measured: float, peak: float, wanted: float = LOUDNESS) -> float:
    """What brings a clip to the loudness wanted, LUFS, or to a peak of 1 where that would be beyond."""
    gain = gain_to(wanted, measured)
    return min(gain, 1 / peak) if peak else gain


def gain_out(measured: float, peak: float, wanted: float, wanted_peak: float) -> float:
    """What brings a generated clip to the loudness and, at most, the peak of the clip it was made from.

    A peak of 1 is always allowed. Where one of both clips is silent nothing is changed but a peak too high.
    """
    gain = 1.0 if SILENCE in (measured, wanted) else gain_to(wanted, measured)
    return min(gain, max(1.0, wanted_peak) / peak) if peak else gain


def as_original(audio: Audio, sample_rate: int, *, mono: bool = True) -> Audio:
    """A clip at another rate, Hz, and mixed to one channel, as the original does it.

    Raises AudioError when the clip is too short to be resampled.
    """
    samples = resample(audio.samples, audio.sample_rate, sample_rate)
    return Audio(samples.mean(axis=0, keepdims=True) if mono and len(samples) > 1 else samples, sample_rate)


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

    It is what the original encodes. A `Vampnet` does the same in blocks, with a resampler for streams.

    mono  mix to one channel, as the original; otherwise the channels stay, and share one gain

    Raises AudioError when the clip is too short to be resampled.
    """
    clip = as_original(audio, sample_rate, mono=mono)
    measured, length = loudness(clip), clip.samples.shape[1]
    gain = gain_in(measured, clip.peak)
    padded = np.zeros((clip.channels, -(-length // hop_length) * hop_length), np.float32)
    np.multiply(clip.samples, np.float32(gain), out=padded[:, :length])
    return Prepared(
        Audio(padded, sample_rate), length, measured, gain, audio.sample_rate, audio.samples.shape[1]
    )


def restore(
    made: Audio, prepared: Prepared, *, sample_rate: int | None = None, seconds: float | None = None
) -> Audio:
    """A generated clip at the loudness and, as far as it reaches, the length of the clip it was made from.

    sample_rate  of the result, Hz; None: the source's
    seconds      of the result; None: the source's exact length

    The gain is that of `gain_out`. A clip that is too short is filled with silence at its end.
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
    peak = prepared.audio.peak / prepared.gain
    gain = gain_out(loudness(made), made.peak, prepared.loudness, peak)
    samples = resample(made.samples * np.float32(gain), made.sample_rate, rate)[:, :length]
    return Audio(np.pad(samples, ((0, 0), (0, length - samples.shape[1]))), rate)


def _length(prepared: Prepared, rate: int) -> int:
    if rate == prepared.source_rate:
        return prepared.source_length
    return max(1, round(prepared.source_length * rate / prepared.source_rate))

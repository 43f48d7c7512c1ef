"""A whole clip on its way into VampNet's codec and back, in one piece: what `vampnet.clip` does in blocks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from audiogen_core.audio import Audio
from audiogen_core.errors import AudioMismatch, OptionError
from audiogen_onnx.vampnet.loudness import loudness
from audiogen_onnx.vampnet.sound import as_original, gain_in, gain_out


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
    loud = Audio(made.samples * np.float32(gain), made.sample_rate)
    samples = as_original(loud, rate, mono=False).samples[:, :length]
    return Audio(np.pad(samples, ((0, 0), (0, length - samples.shape[1]))), rate)


def _length(prepared: Prepared, rate: int) -> int:
    if rate == prepared.source_rate:
        return prepared.source_length
    return max(1, round(prepared.source_length * rate / prepared.source_rate))

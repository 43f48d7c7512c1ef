"""Melody conditioning: which of the twelve pitch classes is strongest in each stretch of a clip.

The frames are those of the original: power spectrograms over half a second, summed into pitch classes,
and of each frame only the strongest kept. The original first separates the clip and listens to "vocals"
and "other" alone, because drums and bass drown a melody out; separate a full mix yourself and give the
melody's stems.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiogen_core.audio import Audio
from audiogen_core.errors import AudioError, ModelError
from audiogen_mlx.musicgen.resample import resample

Chroma = NDArray[np.float32]

SHORTEST = 0.1
"""Seconds: a shorter clip holds no melody."""

SILENCE = 1e-4
"""A clip whose samples all stay below this magnitude (-80 dB) is called silent."""

_EPS = 1e-6
_OCTAVE_CENTRE, _OCTAVE_WIDTH = 5.0, 2.0  # the octave that weighs most, and how fast others fall off
_LOWEST_A = 27.5  # Hz, where octaves are counted from


@dataclass(frozen=True)
class ChromaConfig:
    """The facts of the features. The defaults are those of every published melody model.

    sample_rate  Hz
    window       samples per frame, a power of two
    hop          samples from frame to frame
    bins         pitch classes, the first is C
    seconds      that are looked at; what is behind is cut off
    """

    sample_rate: int = 32_000
    window: int = 16_384
    hop: int = 4_096
    bins: int = 12
    seconds: float = 30.0

    def __post_init__(self) -> None:
        good = self.window >= 64 and self.hop >= 1 and self.bins >= 1 and self.seconds > 0
        if not good or self.sample_rate < 1_000:
            raise ModelError(f"the settings of the melody features make no sense: {self}")

    @property
    def samples(self) -> int:
        """How many samples are looked at."""
        return int(self.seconds * self.sample_rate)

    @property
    def frames(self) -> int:
        """How many frames a clip of full length has (235 in the published models)."""
        return 1 + self.samples // self.hop

    @classmethod
    def from_preprocessor(cls, settings: Mapping[str, Any]) -> ChromaConfig:
        """From transformers' preprocessor_config.json. Raises ModelError."""
        kind = settings.get("feature_extractor_type", "MusicgenMelodyFeatureExtractor")
        if kind != "MusicgenMelodyFeatureExtractor":
            raise ModelError(f"preprocessor_config.json is of a {kind!r}, not of a melody model")
        try:
            return cls(
                sample_rate=int(settings.get("sampling_rate", cls.sample_rate)),
                window=int(settings.get("n_fft", cls.window)),
                hop=int(settings.get("hop_length", cls.hop)),
                bins=int(settings.get("num_chroma", settings.get("feature_size", cls.bins))),
                seconds=float(settings.get("chunk_length", cls.seconds)),
            )
        except (TypeError, ValueError) as error:
            raise ModelError(
                f"preprocessor_config.json does not describe melody features: {error}"
            ) from error

    @classmethod
    def from_audiocraft(cls, settings: Mapping[str, Any]) -> ChromaConfig:
        """From all settings of an audiocraft checkpoint (its `xp.cfg`, as a table). Raises ModelError."""
        own = conditioner_settings(settings, "chroma_stem")
        data = settings.get("dataset") or {}
        try:
            window = int(own.get("winlen") or 2 ** int(own.get("radix2_exp", 14)))
            if not own.get("argmax", True) or int(own.get("nfft") or window) != window:
                raise ModelError(f"melody features of this kind are not known here: {dict(own)}")
            return cls(
                sample_rate=int(own.get("sample_rate", cls.sample_rate)),
                window=window,
                hop=int(own.get("winhop") or window // 4),
                bins=int(own.get("n_chroma", cls.bins)),
                seconds=float(own.get("duration", data.get("segment_duration", cls.seconds))),
            )
        except (TypeError, ValueError) as error:
            raise ModelError(f"the settings do not describe melody features: {error}") from error


def conditioner_settings(settings: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """What audiocraft's settings say of the conditioner on a clip, of a kind. Raises ModelError.

    Where its sample rate is a reference (`${sample_rate}`), that of the whole is put in.
    """
    node = (settings.get("conditioners") or {}).get("self_wav") or {}
    if node.get("model") != kind or not isinstance(node.get(kind), Mapping):
        raise ModelError(f"the settings have no conditioner of the kind {kind!r} on a clip")
    own = dict(node[kind])
    if own.get("sample_rate") == "${sample_rate}":
        own["sample_rate"] = settings.get("sample_rate")
    return own


def prepare(source: Audio | str | Path, config: ChromaConfig | None = None) -> Audio:
    """A melody, given as a clip or a file, as one channel at the model's rate.

    Raises AudioError when the file is missing or no audio, or the clip is silent or shorter than 0.1 s.
    """
    config = config or ChromaConfig()
    audio = source if isinstance(source, Audio) else Audio.load(source)
    name = "the melody" if isinstance(source, Audio) else f"the melody {source}"
    if audio.duration < SHORTEST:
        raise AudioError(f"{name} is too short: {audio.duration:.3f} s, at least {SHORTEST} s are needed")
    if audio.peak < SILENCE:
        raise AudioError(f"{name} is silent: nothing in it reaches -80 dB; give a clip with a melody")
    mono = audio.mix(1)
    if mono.peak < SILENCE:
        raise AudioError(f"{name} is silent in mono: left and right take each other out; give one of them")
    if mono.sample_rate == config.sample_rate:
        return mono
    return Audio(resample(mono.samples[0], mono.sample_rate, config.sample_rate)[None], config.sample_rate)


def window(audio: Audio, start: float, config: ChromaConfig | None = None) -> Audio:
    """What a window of a long piece hears of a melody: full length from `start` seconds on.

    The melody is repeated without end, so a start past its end counts from its beginning again.
    """
    config = config or ChromaConfig()
    mono = prepare(audio, config)
    first = round(start * config.sample_rate)
    length = mono.samples.shape[1]
    places = np.arange(first, first + config.samples) % length
    return Audio(mono.samples[:, places], config.sample_rate)


def chroma(audio: Audio, config: ChromaConfig | None = None) -> Chroma:
    """A clip -> float32 (frames, bins), in every frame a one at the strongest pitch class, zeros else.

    Frames are `hop` samples apart and centred; a clip of n samples at the model's rate has
    1 + n // hop of them, at least 1 + window // hop. Several channels are averaged, another rate is
    converted, and what is past `config.seconds` is cut off. In frames of silence the first class is one.
    """
    config = config or ChromaConfig()
    samples = audio.trim(config.seconds + 1.0).mix(1).samples[0]
    samples = resample(samples, audio.sample_rate, config.sample_rate)[: config.samples]
    strengths = normalised(filter_bank(config) @ power(samples, config))
    found = strengths.argmax(axis=0)
    made: Chroma = np.eye(config.bins, dtype=np.float32)[found]
    return made


def null_chroma(frames: int, bins: int = 12) -> Chroma:
    """The features of no melody, float32 (frames, bins): the first pitch class in every frame."""
    made = np.zeros((frames, bins), np.float32)
    made[:, 0] = 1.0
    return made


def repeated(features: Chroma, frames: int) -> Chroma:
    """Features (n, bins) -> (frames, bins): cut off, or begun again from the first frame."""
    return features[np.arange(frames) % len(features)]


def power(samples: NDArray[np.float32], config: ChromaConfig) -> NDArray[np.float32]:
    """Samples (time,) -> power over frequency (window // 2 + 1, frames), divided by that of the window.

    Frames are centred on multiples of the hop; the clip is mirrored at its ends, and a clip shorter than
    one window is first put in the middle of silence.
    """
    missing = max(0, config.window - len(samples))
    samples = np.pad(samples, (missing // 2, missing - missing // 2))
    samples = np.pad(samples, config.window // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(samples, config.window)[:: config.hop]
    shape = 0.5 - 0.5 * np.cos(2 * math.pi * np.arange(config.window) / config.window)
    spectrum = np.abs(np.fft.rfft(frames * shape, axis=1)) ** 2 / np.square(shape).sum()
    return np.ascontiguousarray(spectrum.T, dtype=np.float32)


def normalised(strengths: NDArray[np.float32]) -> NDArray[np.float32]:
    """Every column divided by its largest value, which is taken to be at least 1e-6."""
    made: NDArray[np.float32] = strengths / np.maximum(strengths.max(axis=0, keepdims=True), _EPS)
    return made


@cache
def filter_bank(config: ChromaConfig) -> NDArray[np.float32]:
    """How much each bin of a spectrum counts for each pitch class: (bins, window // 2 + 1).

    A bump over the distance in pitch, one bin of the spectrum wide, scaled to length one over the
    classes, and weighted by octave. It is what librosa's `filters.chroma` gives without tuning; after
    Ellis 2007, "Chroma feature analysis and synthesis".
    """
    bins, count = config.bins, config.window
    hertz = np.arange(1, count) * (config.sample_rate / count)
    pitch = bins * np.log2(hertz / _LOWEST_A)
    pitch = np.concatenate(([pitch[0] - 1.5 * bins], pitch))  # zero hertz: an octave and a half lower
    width = np.concatenate((np.maximum(np.diff(pitch), 1.0), [1.0]))
    half = round(bins / 2)
    distance = np.mod(pitch[None] - np.arange(bins)[:, None] + half + 10 * bins, bins) - half
    bumps = np.exp(-0.5 * (2 * distance / width) ** 2)
    bumps /= np.sqrt(np.square(bumps).sum(axis=0))
    bumps *= np.exp(-0.5 * ((pitch / bins - _OCTAVE_CENTRE) / _OCTAVE_WIDTH) ** 2)
    from_c = np.roll(bumps, -3 * (bins // 12), axis=0)
    return np.ascontiguousarray(from_c[:, : count // 2 + 1], dtype=np.float32)

"""Onsets against librosa's, frame for frame, on sounds of many kinds."""

from __future__ import annotations

import warnings

import librosa
import numpy as np
import pytest

from audiogen_core.audio import Audio
from audiogen_core.errors import OptionError
from audiogen_onnx.vampnet import onsets


def clicks(rate: int, draw: np.random.Generator) -> np.ndarray:
    out = np.zeros(2 * rate)
    out[draw.integers(0, len(out), 9)] = draw.uniform(0.2, 1, 9)
    return out


def notes(rate: int, draw: np.random.Generator) -> np.ndarray:
    """Decaying harmonic tones at irregular times, over faint noise."""
    time = np.arange(3 * rate) / rate
    out = 1e-3 * draw.standard_normal(len(time))
    for start in np.cumsum(draw.uniform(0.1, 0.5, 8)):
        after = np.maximum(time - start, 0)
        pitch = draw.uniform(80, 900)
        partials = [np.sin(2 * np.pi * pitch * k * after) / k for k in range(1, 6)]
        out += 0.2 * (time >= start) * np.exp(-6 * after) * np.sum(partials, axis=0)
    return out


def swells(rate: int, draw: np.random.Generator) -> np.ndarray:
    """Noise that comes and goes: onsets that are not sudden."""
    time = np.arange(3 * rate) / rate
    return 0.3 * draw.standard_normal(len(time)) * np.sin(np.pi * 1.7 * time) ** 4


def bursts(rate: int, draw: np.random.Generator) -> np.ndarray:
    """Noise with digital silence between."""
    out = 0.4 * draw.standard_normal(2 * rate)
    out[(np.arange(len(out)) // (rate // 5)) % 2 == 0] = 0
    return out


def noise(rate: int, draw: np.random.Generator) -> np.ndarray:
    return 0.1 * draw.standard_normal(rate)


def theirs(samples: np.ndarray, rate: int, hop: int, backtrack: bool) -> list[int]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # empty filters, short clips
        found = librosa.onset.onset_detect(y=samples, sr=rate, hop_length=hop, backtrack=backtrack)
    return [int(frame) for frame in found]


@pytest.mark.parametrize("make", [clicks, notes, swells, bursts, noise])
@pytest.mark.parametrize(("rate", "hop"), [(44_100, 768), (44_100, 512), (16_000, 320), (22_050, 64)])
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("backtrack", [True, False])
def test_are_librosas(make: object, rate: int, hop: int, seed: int, backtrack: bool) -> None:
    samples = make(rate, np.random.default_rng(seed)).astype(np.float32)  # type: ignore[operator]
    found = onsets.detect(Audio(samples[None], rate), hop, backtrack=backtrack).tolist()
    assert found == theirs(samples, rate, hop, backtrack)
    assert found, "a sound without onsets shows nothing here"


@pytest.mark.parametrize("length", [1, 100, 767, 768, 2049, 3000])
def test_short_clips(length: int) -> None:
    samples = np.random.default_rng(length).standard_normal(length).astype(np.float32)
    found = onsets.detect(Audio(samples[None], 44_100), 768).tolist()
    assert found == theirs(samples, 44_100, 768, True)


def test_strength_is_librosas() -> None:
    samples = notes(44_100, np.random.default_rng(5)).astype(np.float32)
    made = onsets.strength(Audio(samples[None], 44_100), 768)
    wanted = librosa.onset.onset_strength(y=samples, sr=44_100, hop_length=768)
    np.testing.assert_allclose(made, wanted, atol=1e-4)


@pytest.mark.parametrize("rate", [1_500, 8_000, 44_100, 192_000])
def test_filters_are_librosas(rate: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = librosa.filters.mel(sr=rate, n_fft=2048, n_mels=128)
    np.testing.assert_allclose(onsets.mel_filters(rate), wanted, atol=1e-7)


def test_long_clips_are_worked_off_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    audio = Audio(notes(16_000, np.random.default_rng(1)).astype(np.float32)[None], 16_000)
    whole = onsets.strength(audio, 320)
    monkeypatch.setattr("audiogen_onnx.vampnet.onsets._CHUNK", 7)
    np.testing.assert_allclose(onsets.strength(audio, 320), whole, atol=1e-4)


def test_silence_has_none() -> None:
    assert onsets.detect(Audio(np.zeros((1, 44_100), np.float32), 44_100), 768).tolist() == []


def test_channels_are_mixed() -> None:
    samples = notes(44_100, np.random.default_rng(3)).astype(np.float32)
    both = np.stack([samples, np.zeros_like(samples)])
    made = onsets.detect(Audio(both, 44_100), 768)
    assert made.tolist() == onsets.detect(Audio(samples[None], 44_100), 768).tolist()


def test_a_hop_of_nothing_is_refused() -> None:
    with pytest.raises(OptionError, match="hop length"):
        onsets.detect(Audio(np.ones((1, 10), np.float32), 8_000), 0)

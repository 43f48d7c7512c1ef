"""Melody features against transformers' extractor, which agrees with audiocraft's; and librosa."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from audiogen_core.audio import Audio
from audiogen_core.musicgen.config import ChromaConfig
from audiogen_core.musicgen.melody import chroma, filter_bank, normalised, power

FIXTURES = Path(__file__).parents[1] / "fixtures" / "musicgen"
CONFIG = ChromaConfig()


@pytest.fixture(scope="module")
def stored() -> dict[str, np.ndarray]:
    with np.load(FIXTURES / "chroma" / "io.npz") as file:
        return {key: file[key] for key in file.files}


@pytest.fixture(scope="module")
def melody(stored) -> np.ndarray:
    return stored["melody_int16"].astype(np.float32) / 32768


def clip(samples: np.ndarray, rate: int = 32_000) -> Audio:
    return Audio(np.ascontiguousarray(samples)[None], rate)


def test_settings_of_the_extractor():
    settings = json.loads((FIXTURES / "musicgen-melody" / "preprocessor_config.json").read_text())
    assert ChromaConfig.from_preprocessor(settings) == CONFIG
    assert CONFIG.samples == settings["n_samples"]
    assert CONFIG.frames == 235


def test_filters(stored):
    bank = filter_bank(CONFIG)
    np.testing.assert_allclose(bank[:, :2000:25], stored["filter_bank_sub"], rtol=0, atol=1e-7)
    np.testing.assert_allclose(bank.sum(axis=1), stored["filter_bank_rowsum"], rtol=1e-6)
    np.testing.assert_allclose(bank.sum(axis=0)[::64], stored["filter_bank_colsum_sub"], rtol=1e-6)


@pytest.mark.parametrize(
    ("rate", "window", "bins"), [(32_000, 16_384, 12), (16_000, 2_048, 12), (44_100, 4_096, 24)]
)
def test_filters_of_librosa(rate, window, bins):
    import librosa

    expected = librosa.filters.chroma(sr=rate, n_fft=window, tuning=0, n_chroma=bins)
    made = filter_bank(ChromaConfig(sample_rate=rate, window=window, bins=bins))
    np.testing.assert_allclose(made, expected, rtol=0, atol=1e-7)


def test_every_step(stored, melody):
    spectrum = power(melody, CONFIG)
    np.testing.assert_allclose(spectrum.sum(axis=0), stored["spectrogram_colsum"][0], rtol=1e-4)
    strengths = filter_bank(CONFIG) @ spectrum
    np.testing.assert_allclose(strengths, stored["raw_chroma"][0], rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(normalised(strengths), stored["norm_chroma"][0], rtol=0, atol=1e-5)


def test_features(stored, melody):
    np.testing.assert_array_equal(chroma(clip(melody)), stored["one_hot"][0])


def test_features_of_a_padded_batch(stored, melody):
    """The extractor fills up the shorter clip of a batch with silence; here it is one played backwards."""
    shorter = np.pad(melody[::-1][:40_000], (0, len(melody) - 40_000))
    np.testing.assert_array_equal(chroma(clip(melody)), stored["batch_one_hot"][0])
    np.testing.assert_array_equal(chroma(clip(shorter)), stored["batch_one_hot"][1])


def test_features_of_a_clip_shorter_than_a_window(stored, melody):
    made = chroma(clip(melody[:9_000]))
    np.testing.assert_array_equal(made, stored["short_one_hot"][0])


def test_features_at_another_rate(stored):
    samples = stored["audio44_int16"].astype(np.float32) / 32768
    np.testing.assert_array_equal(chroma(clip(samples, 44_100)), stored["audio44_one_hot"][0])

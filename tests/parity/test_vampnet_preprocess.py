"""Sound prepared for the codec as the original prepares it: resampled, mono, -24 LUFS, padded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from audiogen_core.audio import Audio
from audiogen_onnx.vampnet.loudness import loudness
from support.vampnet_preprocess import prepare

STORED = np.load(Path(__file__).parents[1] / "fixtures" / "vampnet" / "preprocess.npz")


def clip(index: int) -> Audio:
    samples = STORED[f"pre{index}_in_int16"][0] / np.float32(32768)
    return Audio(samples, int(STORED[f"pre{index}_sr"]))


@pytest.mark.parametrize("index", range(3))
def test_loudness(index: int) -> None:
    assert loudness(clip(index)) == pytest.approx(float(STORED[f"pre{index}_lufs_in"][0]), abs=1e-4)


def test_loudness_of_silence() -> None:
    silence = Audio(np.zeros((1, 20_000), np.float32), 44_100)
    assert loudness(silence) == float(STORED["silence_lufs"][0]) == -70


@pytest.mark.parametrize("index", range(3))
def test_prepared(index: int) -> None:
    made = prepare(clip(index), sample_rate=44_100, hop_length=768)
    stored = STORED[f"pre{index}_out"][0]
    assert made.audio.samples.shape == stored.shape
    np.testing.assert_allclose(made.audio.samples, stored, atol=1e-5)

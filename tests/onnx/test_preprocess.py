"""What goes into the codec, and its way back to the loudness, rate and length of the source."""

from __future__ import annotations

import numpy as np
import pytest

from audiogen_core.audio import Audio
from audiogen_core.errors import AudioMismatch, OptionError
from audiogen_onnx.vampnet.loudness import loudness
from support.vampnet_preprocess import Prepared, prepare, restore


def noise(channels: int, length: int, rate: int, level: float = 0.05) -> Audio:
    samples = level * np.random.default_rng(length).standard_normal((channels, length))
    return Audio(samples.astype(np.float32), rate)


def prepared(audio: Audio, mono: bool = True) -> Prepared:
    return prepare(audio, sample_rate=44_100, hop_length=768, mono=mono)


def test_loudness_is_minus_24_and_frames_are_whole() -> None:
    made = prepared(noise(2, 50_000, 44_100))
    assert made.audio.samples.shape == (1, 66 * 768)
    assert loudness(made.audio) == pytest.approx(-24, abs=0.1)
    assert not made.audio.samples[:, 50_000:].any()


def test_whole_frames_get_no_padding() -> None:
    assert prepared(noise(1, 768 * 3, 44_100)).audio.samples.shape == (1, 768 * 3)


def test_channels_kept_share_one_gain() -> None:
    audio = noise(2, 30_000, 44_100)
    made = prepared(audio, mono=False)
    np.testing.assert_allclose(
        made.audio.samples[:, :30_000], audio.samples * np.float32(made.gain), rtol=1e-6
    )


def test_a_click_is_not_brought_beyond_full_scale() -> None:
    click = np.zeros((1, 44_100), np.float32)
    click[0, 1000] = 0.5
    made = prepared(Audio(click, 44_100))
    assert made.audio.peak == pytest.approx(1.0)
    assert made.gain == pytest.approx(2.0)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("length", [80, 9_999, 30_720])
def test_there_and_back_gives_length_rate_and_loudness(rate: int, length: int) -> None:
    audio = noise(1, length, rate)
    made = prepared(audio)
    back = restore(made.audio, made)
    assert (back.samples.shape, back.sample_rate) == (audio.samples.shape, rate)
    again = Audio(made.audio.samples[:, : made.length], 44_100)
    assert loudness(restore(again, made, sample_rate=44_100)) == pytest.approx(made.loudness, abs=0.05)


def test_without_resampling_the_samples_come_back() -> None:
    audio = noise(2, 40_000, 44_100)
    made = prepared(audio, mono=False)
    np.testing.assert_allclose(restore(made.audio, made).samples, audio.samples, atol=2e-4)


def test_a_silent_clip_stays_silent() -> None:
    made = prepared(Audio(np.zeros((1, 5_000), np.float32), 44_100))
    assert not made.audio.samples.any()
    assert not restore(made.audio, made).samples.any()


def test_silence_in_is_no_reason_to_turn_the_result_down() -> None:
    made = prepared(Audio(np.zeros((1, 30_720), np.float32), 44_100))
    result = noise(1, 30_720, 44_100)
    np.testing.assert_array_equal(restore(result, made).samples, result.samples)


def test_restoring_does_not_clip() -> None:
    source = prepared(noise(1, 44_100, 44_100, level=0.2))
    spiky = np.array(0.001 * noise(1, 44_544, 44_100).samples)
    spiky[0, ::8000] = 0.5
    assert restore(Audio(spiky, 44_100), source).peak <= 1.0 + 1e-6


def test_another_length_can_be_asked_for() -> None:
    made = prepared(noise(1, 44_100, 44_100))
    longer = noise(1, 88_200, 44_100)
    assert restore(longer, made, seconds=1.5).samples.shape == (1, 66_150)
    assert restore(longer, made, seconds=3.0).samples.shape == (1, 132_300)
    with pytest.raises(OptionError, match="has no samples"):
        restore(longer, made, seconds=0)


def test_another_rate_is_refused() -> None:
    made = prepared(noise(1, 44_100, 44_100))
    with pytest.raises(AudioMismatch, match="prepared at 44100 Hz"):
        restore(noise(1, 44_100, 48_000), made)

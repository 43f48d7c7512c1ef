"""What a clip is in a notebook: arrays in and out, parts, joints, shaping, a player, its recipe."""

from __future__ import annotations

import base64
import io
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from audiogen_core.audio import Audio
from audiogen_core.codes import Codes, Latents
from audiogen_core.errors import AudioError, AudioMismatch, OptionError
from audiogen_core.recipe import Recipe

RATE = 8_000


def tone(seconds: float = 1.0, channels: int = 2, level: float = 0.5) -> Audio:
    time = np.arange(round(seconds * RATE)) / RATE
    return Audio(np.tile(level * np.sin(2 * np.pi * 440 * time), (channels, 1)).astype(np.float32), RATE)


@pytest.mark.parametrize(
    ("array", "wanted"),
    [
        (np.array([-32768, 0, 16384], np.int16), [-1.0, 0.0, 0.5]),
        (np.array([-(2**31), 0, 2**30], np.int32), [-1.0, 0.0, 0.5]),
        (np.array([0, 128, 192], np.uint8), [-1.0, 0.0, 0.5]),
        (np.array([-1.0, 0.0, 0.5]), [-1.0, 0.0, 0.5]),
        ([-1.0, 0.0, 0.5], [-1.0, 0.0, 0.5]),
    ],
)
def test_arrays_of_other_libraries(array: object, wanted: list[float]) -> None:
    clip = Audio.from_array(array, RATE)
    assert clip.channels == 1
    np.testing.assert_allclose(clip.samples[0], wanted, atol=1e-7)


def test_channels_last() -> None:
    array = np.zeros((100, 2), np.float32)
    assert Audio.from_array(array, RATE, channels_last=True).samples.shape == (2, 100)
    assert Audio.from_array(array.T, RATE).samples.shape == (2, 100)
    with pytest.raises(AudioError, match="1 to 32 channels"):
        Audio.from_array(array, RATE)
    with pytest.raises(AudioError, match=r"\(channels, time\)"):
        Audio.from_array(np.zeros((2, 2, 2)), RATE)


def test_is_an_array() -> None:
    clip = tone()
    np.testing.assert_array_equal(np.asarray(clip), clip.samples)
    assert np.asarray(clip, np.float64).dtype == np.float64
    changed = np.array(clip)
    changed[:] = 0
    assert clip.peak > 0.4


@pytest.mark.parametrize(
    ("samples", "shown"),
    [
        (np.full((2, 44_100), 0.871), "Audio(1.00 s, 2 ch, 44.1 kHz, peak -1.2 dB)"),
        (np.zeros((1, 22_050)), "Audio(0.50 s, 1 ch, 44.1 kHz, silent)"),
    ],
)
def test_says_what_it_is(samples: np.ndarray, shown: str) -> None:
    assert repr(Audio(samples, 44_100)) == shown


def test_parts_by_seconds() -> None:
    clip = tone(3.0)
    np.testing.assert_array_equal(clip[1.0:2.5].samples, clip.samples[:, 8_000:20_000])
    np.testing.assert_array_equal(clip[:1].samples, clip.samples[:, :8_000])
    np.testing.assert_array_equal(clip[-1:].samples, clip.samples[:, 16_000:])
    np.testing.assert_array_equal(clip[-2:-1].samples, clip.samples[:, 8_000:16_000])
    np.testing.assert_array_equal(clip[-9:].samples, clip.samples)
    for wrong in (slice(0, 2, 2), 1.0, slice(2, 1)):
        with pytest.raises(OptionError):
            clip[wrong]  # type: ignore[index]
    with pytest.raises(AudioError):
        clip[5:]


def test_one_behind_the_other() -> None:
    first, second = tone(1.0), tone(0.5, level=0.1)
    joined = first + second
    assert joined.duration == 1.5
    np.testing.assert_array_equal(joined[1.0:].samples, second.samples)
    for other in (tone(channels=1), Audio(first.samples, 16_000)):
        with pytest.raises(AudioMismatch, match=r"resample\(\) and mix"):
            first + other
    with pytest.raises(TypeError):
        first + 1  # type: ignore[operator]


def test_fades() -> None:
    flat = Audio(np.ones((1, RATE), np.float32), RATE).fade(0.1, 0.25)
    assert flat.samples[0, 0] == 0 == flat.samples[0, -1]
    assert flat.samples[0, 400] == pytest.approx(0.5, abs=0.01)  # half way up
    assert flat.samples[0, -1_001] == pytest.approx(0.5, abs=0.01)
    assert (flat.samples[0, 800:6_000] == 1).all()
    assert np.all(np.diff(flat.samples[0, :801]) >= 0)
    np.testing.assert_array_equal(tone().fade(0, 0).samples, tone().samples)
    assert tone(0.1).fade(5, 5).duration == pytest.approx(0.1)
    with pytest.raises(OptionError, match="0 seconds or more"):
        tone().fade(-1)


def test_one_gain_for_the_peak() -> None:
    assert tone(level=2.5).normalize().peak == pytest.approx(10 ** (-1 / 20), rel=1e-5)
    assert tone(level=0.01).normalize(0.0).peak == pytest.approx(1.0, rel=1e-5)
    silent = Audio(np.zeros((1, 10), np.float32), RATE)
    assert silent.normalize() is silent
    for wrong in (1.0, float("nan")):
        with pytest.raises(OptionError, match="0 dB"):
            tone().normalize(wrong)


def test_loops() -> None:
    clip = tone(0.5)
    assert clip.loop(3).duration == 1.5
    np.testing.assert_array_equal(clip.loop(2)[0.5:].samples, clip.samples)
    for wrong in (0, 10_000_000):
        with pytest.raises(OptionError, match="a loop"):
            clip.loop(wrong)


def test_a_recipe_stays_with_the_clip_it_made(tmp_path: Path) -> None:
    recipe = Recipe("audiogen-core", "1", "demo", settings={"x": 1})
    clip = Audio(tone().samples, RATE, recipe=recipe)
    assert Recipe.read(clip.save(tmp_path / "a.wav")) == recipe
    other = clip.normalize()
    assert other.recipe is None
    with pytest.raises(AudioError, match="no recipe"):
        Recipe.read(other.save(tmp_path / "b.wav"))


@pytest.mark.parametrize(("channels", "rate"), [(1, 8_000), (2, 44_100), (6, 96_000)])
def test_a_player_for_notebooks(channels: int, rate: int) -> None:
    clip = Audio(np.tile(tone(1.0, 1).samples, (channels, 1)), rate)
    page = clip._repr_html_()
    assert f">{clip.summary}</figcaption>" in page and "Audio(" not in page
    assert not re.search(r"https?:", page)
    sound = re.search(r'src="data:audio/flac;base64,([^"]+)"', page)
    assert sound is not None
    samples, heard = soundfile.read(io.BytesIO(base64.b64decode(sound[1])))
    assert heard == min(rate, 48_000)
    assert samples.reshape(len(samples), -1).shape[1] == min(channels, 2)
    assert len(samples) / heard == pytest.approx(clip.duration, rel=0.01)


def test_the_waveform_of_the_player_is_that_of_the_sound() -> None:
    loud_then_quiet = Audio(np.concatenate([tone(1.0, 1).samples, tone(1.0, 1, 0.05).samples], axis=1), RATE)
    points = re.search(r'points="([^"]+)"', loud_then_quiet._repr_html_())
    assert points is not None
    top = [float(point.split(",")[1]) for point in points[1].split()][:800]
    assert max(top[:395]) == pytest.approx(40 - 20, abs=1)  # middle less half of full scale
    assert min(top[405:]) == pytest.approx(40 - 2, abs=1)


def test_long_clips_are_not_embedded() -> None:
    page = Audio(np.zeros((1, 700_000), np.float32), 1_000)._repr_html_()
    assert "<audio" not in page
    assert "save it to hear it" in page


def test_plays_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = []
    device = SimpleNamespace(PortAudioError=OSError, play=lambda *told, **more: heard.append((told, more)))
    monkeypatch.setitem(sys.modules, "sounddevice", device)
    clip = tone()
    clip.play()
    (samples, rate), more = heard[0]
    np.testing.assert_array_equal(samples, clip.samples.T)
    assert rate == RATE
    assert more == {"blocking": True}


def test_draws_itself(tmp_path: Path) -> None:
    assert tone().plot(tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    figure = tone().plot()
    assert len(figure.axes) == 4  # two channels, the spectrogram and its scale


def test_codes_and_latents_are_short_in_a_notebook() -> None:
    codes = Codes(np.zeros((8, 150), np.int32), 1024, 75.0, "demo")
    assert repr(codes) == "Codes(8 codebooks, 150 frames, 2.00 s, demo)"
    latents = Latents(np.zeros((64, 43), np.float32), 21.5, "oobleck")
    assert repr(latents) == "Latents(64 channels, 43 frames, 2.00 s, oobleck)"

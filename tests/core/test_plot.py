"""Pictures, and the spectrograms they show."""

from __future__ import annotations

import builtins
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from audiogen_core import plot
from audiogen_core.audio import Audio
from audiogen_core.codes import Codes
from audiogen_core.errors import MissingDependency, OptionError
from audiogen_core.spectrum import LOWEST, decibels, hertz, mel, spectrogram
from support.sounds import tone


def sine(frequency: float, rate: int = 24_000, seconds: float = 1.0) -> Audio:
    time = np.arange(round(seconds * rate)) / rate
    return Audio(np.sin(2 * np.pi * frequency * time)[None], rate)


def size(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert data[-8:-4] == b"IEND"
    return struct.unpack(">II", data[16:24])


def some_codes(codebooks: int = 4, frames: int = 75) -> Codes:
    values = np.random.default_rng(0).integers(0, 16, (codebooks, frames))
    return Codes(values, 16, 75.0, "demo")


# -- spectrograms ------------------------------------------------------------------------------------


def test_mel_and_back():
    frequencies = np.array([0.0, 30.0, 440.0, 12_000.0])
    np.testing.assert_allclose(hertz(mel(frequencies)), frequencies, atol=1e-8)
    assert float(mel(1000)) == pytest.approx(1000, abs=0.1)


@pytest.mark.parametrize("frequency", [110.0, 1000.0, 7000.0])
@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_a_sine_lies_in_its_band_at_full_scale(frequency, rate):
    made = spectrogram(sine(frequency, rate))
    middle = made.power[:, made.power.shape[1] // 2]
    centres = hertz(np.linspace(mel(LOWEST), mel(rate / 2), 162))[1:-1]
    assert centres[middle.argmax()] == pytest.approx(frequency, rel=0.12)
    assert decibels(middle.max()) == pytest.approx(0, abs=3)


@pytest.mark.parametrize("seconds", [0.0005, 0.02, 1.0, 40.0])
def test_columns_are_bounded_and_filled(seconds):
    made = spectrogram(tone(seconds, channels=2), columns=300)
    assert made.power.shape[0] == 160
    assert 1 <= made.power.shape[1] <= 300
    assert np.isfinite(made.power).all()
    assert made.seconds == pytest.approx(seconds, abs=1e-3)


def test_bands_above_what_the_clip_can_hold_are_nan():
    made = spectrogram(tone(0.5, sample_rate=8_000), top=12_000)
    centres = hertz(np.linspace(mel(LOWEST), mel(12_000), 162))[1:-1]
    assert np.isnan(made.power[centres > 4_300]).all()
    assert np.isfinite(made.power[centres < 3_900]).all()


# -- pictures ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2, 8, 12])
def test_overview(tmp_path, channels):
    path = plot.overview(tone(0.5, channels=channels), tmp_path / "a.png", title="a $name_\n ☃ 音 \udce9")
    width, height = size(path)
    assert width == 1440
    assert height > 600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "audio",
    [
        Audio(np.zeros((1, 1), np.float32), 48_000),
        Audio(np.zeros((1, 24_000), np.float32), 24_000),
        Audio(np.full((1, 5_000), 3.0, np.float32), 24_000),
        tone(0.2, sample_rate=1_000),
        tone(0.02, sample_rate=768_000),
        tone(150, sample_rate=1_000),
    ],
    ids=["one sample", "silence", "loud", "slow", "fast", "long"],
)
def test_extreme_clips_are_drawn(tmp_path, audio):
    size(plot.overview(audio, tmp_path / "a.png"))


def test_single_kinds(tmp_path):
    wave = size(plot.waveform(tone(), tmp_path / "w.png"))
    spectrum = size(plot.spectrogram(tone(), tmp_path / "s.png"))
    both = size(plot.overview(tone(), tmp_path / "b.png"))
    assert wave[1] < spectrum[1] < both[1]
    with pytest.raises(OptionError, match="pie; known: waveform, spectrogram"):
        plot.overview(tone(), tmp_path / "n.png", kinds=["pie"])


def test_compare(tmp_path):
    clips = {"original": tone(1.0), "shorter, at another rate": tone(0.4, sample_rate=8_000)}
    size(plot.compare(clips, tmp_path / "a.png", title="both"))
    with pytest.raises(OptionError, match="nothing to compare"):
        plot.compare({}, tmp_path / "b.png")


@pytest.mark.parametrize(("codebooks", "frames"), [(1, 1), (4, 75), (32, 20_000)])
def test_codes(tmp_path, codebooks, frames):
    size(plot.codes(some_codes(codebooks, frames), tmp_path / "a.png", title="codes"))


def test_loss(tmp_path):
    curves = {"training": [(1, 3.0), (2, 2.0), (3, float("nan"))], "validation": [(1, 2.5)], "none": []}
    size(plot.loss(curves, tmp_path / "a.png"))
    for empty in ({}, {"a": []}, {"a": [(1, float("nan"))]}):
        with pytest.raises(OptionError, match="no points"):
            plot.loss(empty, tmp_path / "b.png")


def test_the_same_clip_gives_the_same_picture(tmp_path):
    first = plot.overview(tone(), tmp_path / "a.png").read_bytes()
    assert plot.overview(tone(), tmp_path / "b.png").read_bytes() == first


def test_no_global_state_of_matplotlib_is_touched(tmp_path):
    known = "matplotlib.pyplot" in sys.modules
    plot.overview(tone(), tmp_path / "a.png")
    assert ("matplotlib.pyplot" in sys.modules) == known


def test_without_matplotlib_the_install_line_is_shown(tmp_path, monkeypatch):
    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(MissingDependency, match=r'pip install "audiogen-core\[plot\]"'):
        plot.waveform(tone(), tmp_path / "a.png")

"""Beats from curves: peaks as scipy finds them, long clips in parts, silence without beats."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import signal

from audiogen_core.audio import Audio
from audiogen_core.errors import ManifestError
from audiogen_core.sinc import resample
from audiogen_onnx.exporter.beats import export_beats
from audiogen_onnx.vampnet import wavebeat
from audiogen_onnx.vampnet.wavebeat import BeatTracker, find_peaks
from support.wavebeat import SMALL, Reference, save_checkpoint


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wavebeat")
    save_checkpoint(folder / "wavebeat.pth", SMALL, Reference(SMALL).state())
    return export_beats(folder / "wavebeat.pth", folder / "beats.onnx")


def noise(length: int, rate: int = 8_000, channels: int = 1) -> Audio:
    samples = 0.2 * np.random.default_rng(length).standard_normal((channels, length))
    return Audio(samples.astype(np.float32), rate)


@given(
    st.lists(st.integers(0, 8), min_size=1, max_size=60),
    st.floats(0, 1),
    st.floats(1, 12),
)
def test_peaks_are_scipys(levels: list[int], height: float, distance: float) -> None:
    """Small whole numbers make plateaus and ties."""
    curve = (np.array(levels) / 8).astype(np.float32)
    wanted, _ = signal.find_peaks(curve, height=height, distance=distance)
    assert find_peaks(curve, height, distance).tolist() == wanted.tolist()


@pytest.mark.parametrize("distance", [1, 3.2, 21.53, 43.07])
def test_peaks_of_long_curves_are_scipys(distance: float) -> None:
    curve = np.random.default_rng(0).random(20_000).astype(np.float32)
    wanted, _ = signal.find_peaks(curve, height=0.5, distance=distance)
    assert find_peaks(curve, 0.5, distance).tolist() == wanted.tolist()


@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (44_100, 2)])
def test_curves_are_those_of_the_network(graph: Path, rate: int, channels: int) -> None:
    audio = noise(20_000, rate, channels)
    samples = resample(audio.samples, rate, 8_000, hold_ends=True).mean(axis=0)
    with torch.inference_mode():
        wanted = Reference(SMALL)(torch.from_numpy(samples / np.abs(samples).max())[None, None])[0].numpy()
    np.testing.assert_allclose(BeatTracker(graph).curves(audio), wanted, atol=1e-5)


@pytest.mark.parametrize("length", [1, 7, 8, 999, 1_000, 1_001, 4_096, 12_345])
def test_parts_of_a_long_clip_join_without_a_trace(
    graph: Path, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    tracker = BeatTracker(graph)
    whole = tracker.curves(noise(length))
    assert whole.shape == (2, -(-length // 8))
    monkeypatch.setattr(wavebeat, "_WINDOW", 1_000)
    np.testing.assert_allclose(tracker.curves(noise(length)), whole, atol=1e-6)


def test_beats_are_the_peaks_of_both_curves(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    curves = np.full((2, 3_000), 0.05, np.float32)
    curves[0, [100, 600, 1_110, 1_600, 1_700, 2_100]] = [0.5, 0.6, 0.4, 0.5, 0.45, 0.2]  # near, low
    curves[1, [620, 1_600]] = [0.3, 0.3]
    monkeypatch.setattr(BeatTracker, "curves", lambda self, audio: curves)
    beats = BeatTracker(graph).track(noise(24_000))
    np.testing.assert_allclose(beats.times, [0.1, 0.62, 1.11, 1.6])
    assert beats.downbeats.tolist() == [False, True, False, True]


@pytest.mark.parametrize("length", [1, 100, 20_000])
def test_silence_has_no_beats(graph: Path, length: int) -> None:
    silence = Audio(np.zeros((1, length), np.float32), 8_000)
    tracker = BeatTracker(graph)
    assert not tracker.curves(silence).any()
    assert len(tracker.track(silence)) == 0


def test_loudness_does_not_matter(graph: Path) -> None:
    audio, tracker = noise(9_000), BeatTracker(graph)
    quiet = Audio(audio.samples * np.float32(0.01), 8_000)
    np.testing.assert_allclose(tracker.curves(quiet), tracker.curves(audio), atol=1e-5)
    assert not np.shares_memory(tracker.curves(audio), audio.samples)


def test_another_graph_is_refused(tmp_path: Path, graph: Path) -> None:
    import onnx

    model = onnx.load(graph)
    facts = {"sample_rate": "8000", "frame_rate": "1000.0", "hop_length": "8", "reach": "8"}
    for changed in ({}, facts | {"sample_rate": "x"}, facts | {"frame_rate": "-1"}):
        onnx.helper.set_model_props(model, changed)
        onnx.save(model, tmp_path / "beats.onnx")
        with pytest.raises(ManifestError, match="not a graph of WaveBeat"):
            BeatTracker(tmp_path / "beats.onnx")


def test_neither_torch_nor_onnx_is_needed(graph: Path) -> None:
    code = (
        "import sys, numpy as np\n"
        "from audiogen_core.audio import Audio\n"
        "from audiogen_onnx.vampnet.wavebeat import BeatTracker\n"
        f"beats = BeatTracker({str(graph)!r}).track(Audio(np.random.rand(1, 8000).astype('f4'), 8000))\n"
        "print(len(beats) > 0, sorted({'torch', 'onnx', 'scipy'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.split(maxsplit=1)[1].strip() == "[]"

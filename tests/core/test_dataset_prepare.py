"""What happens to audio before it is encoded: channels, level, silence, and how much memory that takes."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from audiogen_core import Audio, codecs
from audiogen_core.audio import AudioWriter
from audiogen_core.dataset import Skip
from audiogen_core.dataset.options import Preparation as Options
from audiogen_core.dataset.plan import Entry
from audiogen_core.dataset.prepare import encode_track, shorten_silence
from audiogen_core.errors import OptionError
from support.noise_files import CODEC, noise

JOB = """
import json, sys
from audiogen_core.progress import peak_memory
from audiogen_core.dataset.encode import encode

if __name__ == "__main__":
    report = encode(sys.argv[1], sys.argv[2], codec=sys.argv[3], workers=1)
    print(json.dumps([report.seconds, peak_memory()]))
"""


@pytest.fixture(scope="module")
def codec():
    return codecs.load(CODEC)


def save(folder: Path, samples: np.ndarray, rate: int = 24000) -> Entry:
    Audio(np.atleast_2d(samples).astype(np.float32), rate).save(folder / "x.wav", force=True)
    return Entry("x.wav", "train")


def test_a_track_says_what_it_is(codec, tmp_path):
    entry = save(tmp_path, noise(1.0, 0).samples)
    ((track, frames),) = encode_track(tmp_path, entry, codec, Options(codebooks=3))
    assert frames.shape == (75, 3)
    assert frames.dtype == np.uint16
    assert (track.path, track.frames, track.channel, track.split, track.gain_db) == (
        "x.wav",
        75,
        None,
        "train",
        0.0,
    )


def test_channels_can_be_tracks_of_their_own(codec, tmp_path):
    left, right = noise(1.0, 0).samples[0], noise(1.0, 1).samples[0]
    entry = save(tmp_path, np.stack([left, right]))
    both = encode_track(tmp_path, entry, codec, Options(stereo="split"))
    assert [track.channel for track, _ in both] == [0, 1]
    (mixed,) = encode_track(tmp_path, entry, codec, Options())
    for channel, (track, frames) in zip((left, right), both, strict=True):
        ((alone, expected),) = encode_track(tmp_path, save(tmp_path, channel), codec, Options())
        np.testing.assert_array_equal(frames, expected)
        assert track.sha1 == alone.sha1 != mixed[0].sha1


def test_a_channel_without_sound_is_left_out_alone(codec, tmp_path):
    left = noise(1.0, 0).samples[0]
    entry = save(tmp_path, np.stack([left, 0 * left]))
    first, second = encode_track(tmp_path, entry, codec, Options(stereo="split"))
    assert first[0].channel == 0
    assert second == Skip("x.wav", "silent", "channel 1: never louder than -60 dBFS")


def test_silence_is_kept_where_that_is_asked_for(codec, tmp_path):
    entry = save(tmp_path, np.zeros(3 * 24000))
    assert encode_track(tmp_path, entry, codec, Options()) == [
        Skip("x.wav", "silent", "never louder than -60 dBFS")
    ]
    ((track, _),) = encode_track(tmp_path, entry, codec, Options(silence=0))
    assert track.frames == 225


@pytest.mark.parametrize(("level", "expected"), [("peak", -1.0), ("rms", -20.0)])
def test_levels_are_brought_to_the_same(codec, tmp_path, level, expected):
    audio = noise(1.0, 1)
    ((track, _),) = encode_track(tmp_path, save(tmp_path, audio.samples), codec, Options(level=level))
    measure = audio.peak if level == "peak" else audio.rms
    assert 20 * np.log10(measure) + track.gain_db == pytest.approx(expected, abs=0.01)


def test_no_level_brings_a_peak_beyond_one_decibel_below_full_scale(codec, tmp_path):
    samples = 0.001 * noise(1.0, 1).samples
    samples[0, 5000] = 0.5
    ((track, _),) = encode_track(tmp_path, save(tmp_path, samples), codec, Options(level="rms"))
    assert 0.5 * 10 ** (track.gain_db / 20) == pytest.approx(10 ** (-1 / 20), rel=1e-3)


@pytest.mark.parametrize("sizes", [[1000], [7, 1300], [1, 2, 3]])
def test_long_silence_is_cut_on_the_grid(sizes):
    rng = np.random.default_rng(0)
    x = rng.uniform(0.1, 0.5, (1, 4000)).astype(np.float32)
    x[:, 500:2500] = 0.0
    bounds = [0]
    while bounds[-1] < x.shape[1]:
        bounds.append(bounds[-1] + sizes[len(bounds) % len(sizes)])
    blocks = [x[:, a:b] for a, b in pairwise(bounds)]
    made = np.concatenate(list(shorten_silence(blocks, 100, 5)), axis=1)
    np.testing.assert_array_equal(made, np.concatenate([x[:, :1000], x[:, 2500:]], axis=1))
    kept = np.concatenate(list(shorten_silence(blocks, 100, None)), axis=1)
    np.testing.assert_array_equal(kept, x)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stereo": "left"}, "stereo"),
        ({"level": "lufs"}, "level"),
        ({"silence": -1.0}, "silence"),
        ({"silence": float("nan")}, "silence"),
        ({"min_seconds": float("inf")}, "min_seconds"),
    ],
)
def test_impossible_options_are_refused(changes, message):
    with pytest.raises(OptionError, match=message):
        Options(**changes)


def peak_memory(tmp_path: Path, seconds: int, codec: str) -> int:
    """Bytes that a process held at most that encoded one file of so many seconds."""
    folder = tmp_path / f"audio{seconds}"
    folder.mkdir()
    block = noise(10.0, 0).samples
    with AudioWriter(folder / "x.wav", 24000, 1) as writer:
        for _ in range(seconds // 10):
            writer.write(block)
    command = [sys.executable, "-c", JOB, str(folder), str(tmp_path / f"data{seconds}"), codec]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    encoded, peak = json.loads(done.stdout)
    assert encoded == seconds
    return int(peak)


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is in other units elsewhere")
def test_memory_does_not_grow_with_the_file(tmp_path):
    short, long = (peak_memory(tmp_path, seconds, str(CODEC)) for seconds in (30, 300))
    assert long < short + 20e6, f"{short / 1e6:.0f} MB, then {long / 1e6:.0f} MB"


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is in other units elsewhere")
def test_eight_hours_take_less_than_a_gigabyte_and_a_half(tmp_path):
    peak = peak_memory(tmp_path, 8 * 3600, "demo")
    print(f"8 hours: peak {peak / 1e6:.0f} MB")
    assert peak < 1.5e9

"""Long clips: memory stays flat, the length is exact, and no seam shows where windows or blocks meet."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from audiogen_core.audio import Audio
from audiogen_core.codec import Codec
from audiogen_core.compose import compose
from audiogen_onnx.vampnet.generate import Vampnet
from audiogen_onnx.vampnet.options import VampOptions
from support.exported import exported
from support.vampnet_fakes import fake_vampnet

RATE = 44_100
COMMAND = Path(sys.executable).with_name("audiogen-onnx")


def decibels(part: np.ndarray, whole: np.ndarray) -> float:
    """How far a part lies below a whole, dB of root mean squares."""
    return 20 * np.log10(np.sqrt((part**2).mean()) / np.sqrt((whole**2).mean()) + 1e-12)


def decoded_whole(codec: Codec, codes: np.ndarray) -> np.ndarray:
    """Everything at once, with no chunk of the decoder's ending anywhere."""
    usual, codec.chunk_seconds = codec.chunk_seconds, 1e4
    try:
        return np.concatenate(list(codec.decode_blocks([codes.astype(np.int32)])), axis=1)
    finally:
        codec.chunk_seconds = usual


def test_no_seam_where_windows_and_blocks_meet():
    """Around every border of a window the result is the clip decoded at once, to 40 dB and better.

    The codes of all windows are decoded once, so the only place for a seam is between blocks of the decoder;
    and a border of windows is no place where neighbouring samples differ more than elsewhere.
    """
    vampnet = fake_vampnet()
    info = vampnet.codec.info
    clip = compose(3, seconds=12).audio.resample(info.sample_rate).mix(1)
    codes = vampnet.codec.encode(clip).values
    mask = np.ones(codes.shape, bool)
    mask[:, ::7] = False
    made = vampnet.vamp_codes(codes, mask, seed=1, steps=2)
    streamed = np.concatenate(list(vampnet.codec.decode_blocks([made.astype(np.int32)])), axis=1)[0]
    whole = decoded_whole(vampnet.codec, made)[0]
    borders = [window.first for window in vampnet.pair.windows(mask[None], VampOptions()) if window.first]
    assert len(borders) > 5
    steps = np.abs(np.diff(whole))
    for border in borders:
        around = slice((border - 4) * info.hop_length, (border + 4) * info.hop_length)
        assert decibels(streamed[around] - whole[around], whole[around]) < -40
        at = border * info.hop_length
        assert steps[at - 2 : at + 2].max() <= np.quantile(steps[around], 0.999)


def run_command(place: Path, seconds: float) -> dict:
    """Vamp a stereo clip of so many seconds and an odd number of samples in a process of its own."""
    count = round(seconds * RATE) + 123
    phrase = compose(3, seconds=8).audio.resample(RATE).mix(1).samples
    samples = np.tile(phrase, (1, count // phrase.shape[1] + 1))[:, :count] * 0.8
    Audio(np.concatenate([samples, samples * 0.5]), RATE).save(place / "in.wav")
    asked = ["in.wav", "-m", exported("big"), "-o", "out.wav", "-f", "--seed", 1, "--threads", 1, "--json"]
    done = subprocess.run(
        [str(part) for part in (COMMAND, "vamp", *asked)], cwd=place, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert Audio.load(place / "out.wav").samples.shape == (2, count)
    return json.loads(done.stdout)


@pytest.mark.slow
def test_memory_is_flat_and_the_length_exact(tmp_path):
    short, long = (run_command(tmp_path, seconds)["peak_memory"] for seconds in (20, 60))
    print(f"peak memory: {short / 1e6:.0f} MB for 20 s, {long / 1e6:.0f} MB for 60 s of stereo")
    assert long < 1.05 * short
    assert not [path for path in tmp_path.iterdir() if path.name not in ("in.wav", "out.wav")]


def test_windows_have_a_bound_unless_asked_for():
    vampnet = Vampnet.load(exported(), threads=1)
    assert vampnet.coarse.window == vampnet.fine.window == 1024
    codes = np.zeros((5, 3000), np.int64)
    mask = np.zeros(codes.shape, bool)
    mask[:, 2000:2100] = True
    made = vampnet.vamp_codes(codes, mask, seed=1, steps=1)
    assert made.shape == codes.shape and not made[~mask].any()

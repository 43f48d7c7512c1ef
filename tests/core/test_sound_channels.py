"""Surround, stereo and mono: how channels are mixed, what is told of it, and what can be chosen."""

from __future__ import annotations

import json
import math
import struct
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiogen_core.audio import Audio, SoundWarning, probe, stream
from audiogen_core.errors import AudioMismatch, OptionError
from support.sounds import tone, write_reference

RATE = 8_000
HALF = math.sqrt(0.5)
SPEAKERS = {
    6: ("L", "R", "C", "LFE", "Ls", "Rs"),
    8: ("L", "R", "C", "LFE", "Lb", "Rb", "Ls", "Rs"),
    5: ("L", "R", "C", "Ls", "Rs"),
    4: ("L", "R", "Ls", "Rs"),
    3: ("L", "R", "C"),
    7: ("L", "R", "C", "LFE", "S", "Ls", "Rs"),
}
PARTS = {"L": (1, 0), "R": (0, 1), "C": (HALF, HALF), "LFE": (0, 0), "S": (0.5, 0.5)}
LEFT, RIGHT = (HALF, 0), (0, HALF)


def apart(channels: int, seconds: float = 0.5) -> Audio:
    """A tone of its own in each channel: 100, 200, ... Hz, at 0.1."""
    time = np.arange(round(seconds * RATE)) / RATE
    rows = [0.1 * np.sin(2 * np.pi * 100 * (1 + index) * time) for index in range(channels)]
    return Audio(np.stack(rows), RATE)


def stereo_of(surround: Audio, names: tuple[str, ...] | None = None) -> np.ndarray:
    parts = [
        PARTS.get(name) or (LEFT if name[0] == "L" else RIGHT)
        for name in names or SPEAKERS[surround.channels]
    ]
    return np.array(parts).T @ surround.samples.astype(np.float64)


@pytest.mark.parametrize("channels", SPEAKERS)
@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.opus", "a.aiff"])
def test_surround_is_mixed_as_bs_775_says(tmp_path, name, channels):
    surround = apart(channels)
    wanted = stereo_of(surround)
    np.testing.assert_allclose(surround.mix(2).samples, wanted, atol=1e-6)
    np.testing.assert_allclose(surround.mix(1).samples[0], wanted.mean(axis=0), atol=1e-6)
    read = Audio.load(surround.save(tmp_path / name))
    tolerance = 0.03 if name[2:] in ("ogg", "opus") else 2**-14
    inner = slice(400, -400)
    full = [
        index for index, each in enumerate(SPEAKERS[channels]) if each != "LFE"
    ]  # Opus keeps its lows alone
    np.testing.assert_allclose(read.samples[full, inner], surround.samples[full, inner], atol=tolerance)
    for count, right in ((2, wanted), (1, wanted.mean(axis=0, keepdims=True))):
        loaded = Audio.load(tmp_path / name, channels=count)
        np.testing.assert_allclose(loaded.samples[:, inner], right[:, inner], atol=2 * tolerance)
        np.testing.assert_allclose(loaded.samples, read.mix(count).samples, atol=1e-6)
        blocks = list(stream(tmp_path / name, channels=count, block_seconds=0.07))
        np.testing.assert_array_equal(np.concatenate(blocks, axis=1), loaded.samples)


def extensible(path: Path, audio: Audio, mask: int) -> Path:
    """A WAV file that names the speakers of its channels."""
    path = write_reference(path, audio, "FLOAT", form="WAVEX")
    data = bytearray(path.read_bytes())
    at = data.index(b"fmt ") + 8 + 20
    data[at : at + 4] = struct.pack("<I", mask)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("mask", "names"),
    [
        (0x00B, ("L", "R", "LFE")),  # 2.1
        (0x107, ("L", "R", "C", "S")),  # 4.0
        (0x00F, ("L", "R", "C", "LFE")),  # 3.1
        (0x60F, ("L", "R", "C", "LFE", "Ls", "Rs")),  # 5.1 with the surrounds at the sides
        (0x03F, ("L", "R", "C", "LFE", "Lb", "Rb")),
        (0x13F, ("L", "R", "C", "LFE", "Lb", "Rb", "S")),
        (0x000, SPEAKERS[6]),  # not said
    ],
)
def test_speakers_that_a_file_names_are_believed(tmp_path, mask, names):
    audio = apart(len(names))
    path = extensible(tmp_path / "a.wav", audio, mask)
    wanted = stereo_of(audio, names)
    assert probe(path).speakers == mask
    whole = Audio.load(path)
    for mixed in (Audio.load(path, channels=2), whole.mix(2), whole.slice(0, 9).resample(RATE).mix(2)):
        np.testing.assert_allclose(mixed.samples, wanted, atol=1e-6)
    np.testing.assert_allclose(whole.resample(16_000).mix(2).resample(RATE).samples, wanted, atol=0.01)


def test_channels_of_no_known_speakers_become_mono_alone(tmp_path):
    for audio, path in [
        (apart(9), apart(9).save(tmp_path / "a.wav", subtype="FLOAT")),
        (apart(3), extensible(tmp_path / "b.wav", apart(3), 0x1003)),  # with speakers in the ceiling
    ]:
        mean = audio.samples.mean(axis=0, keepdims=True)
        np.testing.assert_allclose(Audio.load(path, channels=1).samples, mean, atol=1e-6)
        for options in ({"channels": 2}, {"channel": "left"}, {"channels": 4}):
            with pytest.raises(AudioMismatch, match="mix to 1 first"):
                Audio.load(path, **options)


def test_a_side_can_be_chosen(tmp_path):
    audio = apart(2)
    path = audio.save(tmp_path / "a.wav", subtype="FLOAT")
    left, right = audio.samples
    wanted = {"left": left, "right": right, "mid": (left + right) / 2, "side": (left - right) / 2}
    for channel, row in wanted.items():
        np.testing.assert_allclose(audio.mix(1, channel=channel).samples, [row], atol=1e-7)
        np.testing.assert_allclose(audio.mix(2, channel=channel).samples, [row, row], atol=1e-7)
        np.testing.assert_allclose(Audio.load(path, channel=channel).samples, [row], atol=1e-7)
        np.testing.assert_allclose(
            Audio.load(path, channels=2, channel=channel).samples, [row, row], atol=1e-7
        )
        blocks = list(stream(path, channel=channel, block_seconds=0.1))
        np.testing.assert_allclose(np.concatenate(blocks, axis=1), [row], atol=1e-7)
    six = apart(6)
    np.testing.assert_allclose(six.mix(1, channel="left").samples[0], stereo_of(six)[0], atol=1e-6)
    mono = apart(1)
    for channel in ("left", "right", "mid"):
        np.testing.assert_array_equal(mono.mix(1, channel=channel).samples, mono.samples)
    with pytest.raises(AudioMismatch, match="one channel"):
        mono.mix(1, channel="side")
    for call in (lambda: audio.mix(1, channel="both"), lambda: Audio.load(path, channel="LEFT")):
        with pytest.raises(OptionError, match="channel must be one of left, right, mid, side"):
            call()


@pytest.mark.parametrize("balance", [-1.0, -0.98, -0.9])
def test_antiphase_is_told_once_with_the_way_out(tmp_path, balance):
    left = tone(1.0).samples[0]
    audio = Audio(np.stack([left, balance * left]), 48_000)
    path = audio.save(tmp_path / "a.wav", subtype="FLOAT")
    said = r"left and right are in antiphase .* \(channel left or right\)"
    for mixed in (
        lambda: audio.mix(1),
        lambda: Audio.load(path, channels=1),
        lambda: list(stream(path, channels=1, sample_rate=24_000, block_seconds=0.1)),
    ):
        with pytest.warns(SoundWarning, match=said) as told:
            mixed()
        assert len(told) == 1


def test_what_is_not_in_antiphase_is_not_told(tmp_path):
    left = tone(1.0).samples[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Audio(np.stack([left, -0.8 * left]), 48_000).mix(1)
        Audio(np.stack([left, 0 * left]), 48_000).mix(1)
        Audio(np.zeros((2, 100), np.float32), 48_000).mix(1)
        Audio(np.stack([left, -left]), 48_000).mix(1, channel="left")
        Audio(np.stack([left, -left]), 48_000).mix(1, channel="mid")
        assert Audio(np.stack([left, left]), 48_000).mix(1, channel="side").peak == 0


def test_encode_takes_surround_and_a_side_of_stereo(tmp_path):
    soundfile.write(tmp_path / "six.wav", tone(0.4, channels=6).samples.T, 48_000)
    left = tone(0.4).samples[0]
    Audio(np.stack([left, -left]), 48_000).save(tmp_path / "anti.wav")
    Audio(left[None], 48_000).save(tmp_path / "left.wav")

    def encode(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "audiogen_core", "encode", *words, "--json"]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)

    encode("six.wav", "-o", "six.codes")
    told = encode("anti.wav", "-o", "anti.codes")
    assert told.stderr.count("warning: anti.wav: left and right are in antiphase") == 1
    assert json.loads(told.stdout)
    assert "antiphase" not in encode("anti.wav", "-o", "one.codes", "--channel", "left").stderr
    encode("left.wav", "-o", "left.codes")

    from audiogen_core.codes import Codes

    one, wanted = (Codes.load(tmp_path / f"{name}.codes").values for name in ("one", "left"))
    assert np.mean(one == wanted) > 0.99

"""Melody features: pitch classes of known notes, windows, and clips that hold no melody."""

from __future__ import annotations

import numpy as np
import pytest

from audiogen_core.audio import Audio
from audiogen_core.errors import AudioError, ModelError, SoundWarning
from audiogen_core.musicgen.config import ChromaConfig
from audiogen_core.musicgen.melody import (
    chroma,
    null_chroma,
    prepare,
    repeated,
    window,
)

SMALL = ChromaConfig(sample_rate=8_000, window=4_096, hop=1_024, seconds=2.0)


def tone(midi: float, seconds: float, rate: int = 32_000, channels: int = 1) -> Audio:
    """A note with five overtones."""
    time = np.arange(round(seconds * rate)) / rate
    pitch = 440 * 2 ** ((midi - 69) / 12)
    samples = sum(0.5**k * np.sin(2 * np.pi * k * pitch * time) for k in range(1, 6))
    return Audio(np.repeat(samples[None].astype(np.float32) * 0.4, channels, axis=0), rate)


@pytest.mark.parametrize("midi", range(60, 72))
def test_each_pitch_class(midi):
    made = chroma(tone(midi, 1.0))
    assert made.shape == (1 + 32_000 // 4_096, 12)
    assert (made.argmax(axis=1) == midi - 60).all()
    assert (made.sum(axis=1) == 1).all()
    assert made.dtype == np.float32


@pytest.mark.parametrize("rate", [16_000, 22_050, 44_100, 48_000, 47_999])
def test_rate_of_the_clip_does_not_matter(rate):
    made = chroma(tone(67, 1.0, rate))
    assert made.shape[0] == 8
    assert (made.argmax(axis=1) == 7).all()


def test_channels_are_averaged():
    one, other = tone(60, 1.0).samples, tone(64, 1.0).samples
    together = chroma(Audio(np.concatenate([one, 0.2 * other]), 32_000))
    np.testing.assert_array_equal(together, chroma(Audio((one + 0.2 * other) / 2, 32_000)))


def test_only_the_first_seconds_count():
    audio = Audio(np.concatenate([tone(60, 2.0, 8_000).samples, tone(66, 3.0, 8_000).samples], axis=1), 8_000)
    made = chroma(audio, SMALL)
    assert made.shape[0] == SMALL.frames
    assert (made[:-1].argmax(axis=1) == 0).all()
    longer = Audio(audio.samples[:, : 2 * 8_000], 8_000)
    np.testing.assert_array_equal(made, chroma(longer, SMALL))


def test_no_melody_is_c_in_every_frame():
    made = null_chroma(5)
    np.testing.assert_array_equal(made, chroma(Audio(np.zeros((1, 100), np.float32), 32_000)))
    assert made.dtype == np.float32


@pytest.mark.parametrize("rate", [22_050, 32_000, 44_100])
def test_rests_between_notes_are_c(rate):
    """The original takes the strongest of twelve zeros, which is the first."""
    parts = [(None, 1.0), (69, 1.2), (None, 1.4), (64, 0.9), (None, 1.1)]
    sounds = [tone(midi or 60, seconds, rate).samples * (midi is not None) for midi, seconds in parts]
    clip = Audio(np.concatenate(sounds, axis=1), rate)
    found = chroma(clip).argmax(axis=1)
    ends, expected = np.cumsum([seconds for _, seconds in parts]), [0, 9, 0, 4, 0]
    checked = 0
    for frame, pitch in enumerate(found):
        part = np.searchsorted(ends, frame * 4_096 / 32_000)
        start, end = ends[part] - parts[part][1], ends[part]
        if start + 0.26 < frame * 4_096 / 32_000 < end - 0.26:  # the window, half a second, sees nothing else
            assert pitch == expected[part], frame
            checked += 1
    assert checked > 15


@pytest.mark.parametrize("frames", [1, 3, 7, 8, 20])
def test_repeated_begins_again_or_is_cut(frames):
    features = np.eye(7, dtype=np.float32)
    made = repeated(features, frames)
    assert [row.argmax() for row in made] == [i % 7 for i in range(frames)]


def test_windows_go_round():
    audio = prepare(tone(60, 1.5, 8_000), SMALL)
    for start in (0.0, 0.5, 1.25, 7.3):
        made = window(audio, start, SMALL).samples[0]
        first = round(start * 8_000)
        endless = np.tile(audio.samples[0], 10)
        np.testing.assert_array_equal(made, endless[first : first + 16_000])


def test_window_of_a_clip_at_another_rate_is_converted_before_it_is_cut():
    made = window(tone(60, 1.0, 44_100, channels=2), 0.5, SMALL)
    assert (made.sample_rate, made.samples.shape) == (8_000, (1, 16_000))
    assert (chroma(made, SMALL)[1:-1].argmax(axis=1) == 0).all()


def test_prepare_reads_files_and_leaves_what_is_ready(tmp_path):
    path = tone(69, 1.0, 44_100, channels=2).save(tmp_path / "a.wav")
    audio = prepare(path)
    assert (audio.sample_rate, audio.samples.shape) == (32_000, (1, 32_000))
    assert prepare(audio) is audio
    np.testing.assert_array_equal(chroma(audio), chroma(Audio.load(path)))


def test_melody_that_is_missing(tmp_path):
    with pytest.raises(AudioError, match=r"gone\.wav"):
        prepare(tmp_path / "gone.wav")


def test_melody_that_is_not_audio(tmp_path):
    path = tmp_path / "text.wav"
    path.write_text("not a sound")
    with pytest.raises(AudioError, match=r"text\.wav"):
        prepare(path)


def test_melody_that_is_silent(tmp_path):
    quiet = Audio(np.full((2, 32_000), 5e-5, np.float32), 32_000)
    path = quiet.save(tmp_path / "quiet.wav", subtype="FLOAT")
    with pytest.raises(AudioError, match=r"quiet\.wav is silent.*give a clip with a melody"):
        prepare(path)
    with pytest.raises(AudioError, match="the melody is silent"):
        prepare(quiet)


def test_melody_that_is_silent_in_mono(tmp_path):
    left = tone(69, 1.0).samples[0]
    anti = Audio(np.stack([left, -left]), 32_000)
    path = anti.save(tmp_path / "anti.wav", subtype="FLOAT")
    for source in (anti, path):
        with (
            pytest.warns(SoundWarning, match="antiphase"),
            pytest.raises(AudioError, match=r"silent in mono: left and right take each other out"),
        ):
            prepare(source)
    assert prepare(Audio.load(path, channel="left")).peak > 0.1


def test_melody_that_is_too_short():
    with pytest.raises(AudioError, match=r"too short: 0\.050 s, at least 0\.1 s"):
        prepare(tone(60, 0.05))


def checkpoint(**chroma_stem: object) -> dict:
    """The settings of an audiocraft checkpoint, as far as they concern the melody."""
    node = {"model": "chroma_stem", "chroma_stem": {"sample_rate": "${sample_rate}", **chroma_stem}}
    return {
        "sample_rate": 32_000,
        "conditioners": {"self_wav": node},
        "dataset": {"segment_duration": 30, "batch_size": 192},
    }


def test_settings_of_audiocraft():
    published = checkpoint(n_chroma=12, radix2_exp=14, argmax=True, eval_wavs=None)
    assert ChromaConfig.from_audiocraft(published) == ChromaConfig()
    other = checkpoint(sample_rate=16_000, radix2_exp=12, winhop=512, duration=10)
    assert ChromaConfig.from_audiocraft(other).frames == 1 + 160_000 // 512


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"conditioners": {"description": {"model": "t5"}}},
        {"conditioners": {"self_wav": {"model": "style", "style": {}}}},
        {"conditioners": {"self_wav": {"model": "chroma_stem"}}},
        checkpoint(argmax=False),
        checkpoint(nfft=32_768),
        checkpoint(radix2_exp="many"),
        checkpoint(radix2_exp=2),
        checkpoint(duration=0),
        checkpoint(winhop=-1),
        checkpoint(sample_rate=None),
    ],
)
def test_settings_of_audiocraft_that_cannot_be(settings):
    with pytest.raises(ModelError):
        ChromaConfig.from_audiocraft(settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"feature_extractor_type": "EncodecFeatureExtractor"},
        {"n_fft": None},
        {"hop_length": 0},
        {"chunk_length": -1},
    ],
)
def test_settings_of_transformers_that_cannot_be(settings):
    with pytest.raises(ModelError):
        ChromaConfig.from_preprocessor(settings)

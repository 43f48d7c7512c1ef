"""Audio values, files and streams."""

from __future__ import annotations

import errno
import os
import stat
import struct
import sys
import time
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from audiogen_core.audio import Audio, AudioWriter, ClippingWarning, probe, stream
from audiogen_core.errors import AudioError, AudiogenError, AudioMismatch, OptionError
from support.measured import measured
from support.sounds import FILES, tone, write_reference

SUFFIXES = [".wav", ".flac", ".aiff", ".ogg", ".opus", ".mp3"]
LOSSLESS = [".wav", ".flac", ".aiff"]


# -- the value ---------------------------------------------------------------------------------------


def test_samples_are_float32_read_only_and_not_shared():
    source = np.zeros((2, 8))
    audio = Audio(source, 44_100)
    source[:] = 1
    assert audio.samples.dtype == np.float32
    assert audio.samples.max() == 0
    with pytest.raises(ValueError, match="read-only"):
        audio.samples[0, 0] = 1
    view = source[:]
    view.setflags(write=False)
    held = Audio(view, 44_100)
    source[:] = 0
    assert held.samples.min() == 1
    assert audio.channels == 2
    assert audio.duration == pytest.approx(8 / 44_100)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured in a fork")
def test_reading_holds_a_clip_once(tmp_path):
    path = tmp_path / "silence.flac"
    with AudioWriter(path, 192_000, 8) as writer:
        for _ in range(40):
            writer.write(np.zeros((8, 192_000), np.float32))
    size = 40 * 192_000 * 8 * 4
    cost = measured(lambda: str(Audio.load(path).samples.nbytes))
    assert cost.result == str(size)
    assert cost.memory < 1.75 * size


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(8, np.float32),
        np.zeros((1, 0), np.float32),
        np.zeros((0, 8), np.float32),
        np.zeros((33, 8), np.float32),
        np.zeros((1, 1, 8), np.float32),
        np.zeros((1, 8), np.int16),
        np.full((1, 8), np.nan, np.float32),
        np.full((1, 8), np.inf),
    ],
)
def test_misshapen_samples_are_refused(samples):
    with pytest.raises(AudioError):
        Audio(samples, 48_000)


@pytest.mark.parametrize("rate", [0, -1, 99, 768_001, 44_100.5, float("nan")])
def test_impossible_rates_are_refused(rate):
    with pytest.raises(AudioError, match="sample rates"):
        Audio(np.zeros((1, 8), np.float32), rate)
    with pytest.raises(AudioError, match="sample rates"):
        tone().resample(rate)


def test_mix_is_the_mean_or_copies():
    stereo = Audio(np.array([[0.5, 0.1], [-0.1, 0.3]], np.float32), 48_000)
    np.testing.assert_allclose(stereo.mix(1).samples, [[0.2, 0.2]], atol=1e-7)
    assert stereo.mix(1).mix(3).samples.tolist() == [stereo.mix(1).samples[0].tolist()] * 3
    assert stereo.mix(2) is stereo
    with pytest.raises(AudioMismatch, match="mix to 1 first"):
        stereo.mix(3)


def test_trim_and_slice_count_samples():
    audio = tone(1.0)
    assert audio.trim(0.25).samples.shape == (1, 12_000)
    assert audio.trim(9).samples.shape == (1, 48_000)
    np.testing.assert_array_equal(audio.slice(0.5, 0.75).samples, audio.samples[:, 24_000:36_000])
    np.testing.assert_array_equal(audio.slice(0.5).samples, audio.samples[:, 24_000:])
    with pytest.raises(AudioError, match="the clip has"):
        audio.slice(1.0)
    for start, end in [(-1, None), (0, 0), (0.5, 0.2), (float("nan"), None), (0, float("nan"))]:
        with pytest.raises(OptionError):
            audio.slice(start, end)


def test_peak_and_rms_of_a_sine():
    audio = Audio(0.5 * np.sin(2 * np.pi * 100 * np.arange(48_000) / 48_000)[None], 48_000)
    assert audio.peak == pytest.approx(0.5, abs=1e-5)
    assert audio.rms == pytest.approx(0.5 / np.sqrt(2), abs=1e-5)


def test_resampling_keeps_a_sine():
    def sine(rate):
        return Audio(0.5 * np.sin(2 * np.pi * 1000 * np.arange(rate) / rate)[None], rate)

    for old, new in [(48_000, 24_000), (44_100, 48_000), (24_000, 32_000), (22_050, 44_100)]:
        made = sine(old).resample(new)
        assert made.sample_rate == new
        assert made.samples.shape == (1, new)
        middle = slice(new // 4, -new // 4)
        np.testing.assert_allclose(made.samples[:, middle], sine(new).samples[:, middle], atol=1e-4)
    assert sine(48_000).resample(48_000).samples.shape == (1, 48_000)


def test_resampling_to_nothing_is_refused():
    with pytest.raises(AudioError, match="too short"):
        Audio(np.zeros((1, 2), np.float32), 768_000).resample(1_000)


# -- reading -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("name", FILES)
def test_every_format_is_read(tmp_path, name, channels):
    audio = tone(0.7, channels=channels)
    path = write_reference(tmp_path / name, audio, FILES[name])
    read = Audio.load(path)
    assert read.sample_rate == 48_000
    assert read.samples.shape == audio.samples.shape
    noise = np.sqrt(np.mean((read.samples - audio.samples) ** 2)) / audio.rms
    bound = {"PCM_U8": 0.05, "MPEG_LAYER_III": 0.2, "VORBIS": 0.2, "OPUS": 0.2}.get(FILES[name], 2e-4)
    assert noise < bound
    info = probe(path)
    assert (info.sample_rate, info.channels, info.subtype) == (48_000, channels, FILES[name])


@pytest.mark.parametrize("name", FILES)
def test_a_stream_is_the_whole_file_whatever_the_block(tmp_path, name):
    path = write_reference(tmp_path / name, tone(1.3, channels=2), FILES[name])
    for options in ({}, {"sample_rate": 32_000, "channels": 1}, {"sample_rate": 44_100}, {"channels": 1}):
        whole = Audio.load(path, **options).samples
        for seconds in (0.0101, 0.25, 60):
            blocks = list(stream(path, block_seconds=seconds, **options))
            assert all(block.dtype == np.float32 and block.shape[1] > 0 for block in blocks)
            np.testing.assert_allclose(np.concatenate(blocks, axis=1), whole, atol=1e-6)


def test_loading_converts_as_the_methods_do(tmp_path):
    path = tone(0.5, channels=2).save(tmp_path / "a.wav")
    made = Audio.load(path, sample_rate=24_000, channels=1)
    np.testing.assert_allclose(made.samples, Audio.load(path).mix(1).resample(24_000).samples, atol=1e-6)
    wide = Audio.load(tone(0.2).save(tmp_path / "b.wav"), channels=2, sample_rate=96_000)
    assert wide.samples.shape == (2, 19_200)
    np.testing.assert_array_equal(wide.samples[0], wide.samples[1])
    six = tone(0.1, channels=6).save(tmp_path / "c.wav")
    assert Audio.load(six, channels=1).channels == 1
    nine = tone(0.1, channels=9).save(tmp_path / "d.wav")
    assert Audio.load(nine, channels=1).channels == 1
    with pytest.raises(AudioMismatch, match=r"d\.wav: 9 channels"):
        Audio.load(nine, channels=2)


@pytest.mark.parametrize(
    ("rate", "channels"), [(384_000, 1), (768_000, 2), (1_000, 1), (48_000, 8), (44_100, 32)]
)
def test_unusual_files_are_read(tmp_path, rate, channels):
    audio = tone(0.05, sample_rate=rate, channels=channels)
    read = Audio.load(audio.save(tmp_path / "a.wav"))
    assert (read.sample_rate, read.samples.shape) == (rate, audio.samples.shape)


def test_extensible_wav_and_aifc_are_read(tmp_path):
    audio = tone(0.1, channels=2)
    for name, form, endian in [("a.wav", "WAVEX", None), ("b.aiff", "AIFF", "LITTLE")]:
        soundfile.write(tmp_path / name, audio.samples.T, 48_000, "PCM_24", endian, form)
        np.testing.assert_allclose(Audio.load(tmp_path / name).samples, audio.samples, atol=1e-6)


def test_a_wav_from_a_pipe_is_read(tmp_path):
    path = tone(0.1).save(tmp_path / "a.wav")
    data = bytearray(path.read_bytes())
    at = data.index(b"data")
    data[4:8] = data[at + 4 : at + 8] = b"\xff" * 4
    path.write_bytes(data)
    assert Audio.load(path).samples.shape == (1, 4_800)


def test_a_flac_of_unknown_length_is_read(tmp_path):
    path = tone(0.5).save(tmp_path / "a.flac")
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0  # the number of samples: 36 bits from here
    data[22:26] = bytes(4)
    path.write_bytes(data)
    assert Audio.load(path).samples.shape == (1, 24_000)
    with pytest.raises(AudioError, match="are allowed"):
        Audio.load(path, max_seconds=0.3)


def test_an_mp3_that_does_not_count_its_frames_is_read_to_its_end(tmp_path):
    path = tmp_path / "a.mp3"
    clip = tone(2.0)
    soundfile.write(path, clip.samples.T, clip.sample_rate, bitrate_mode="CONSTANT", compression_level=0.5)
    counted = Audio.load(path).samples.shape[1]
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(AudioError, match="cut off"):
        Audio.load(path)
    bare = data.replace(b"Xing", bytes(4)).replace(b"Info", bytes(4))
    assert bare != data
    for share in (1.0, 0.51):
        path.write_bytes(bare[: int(len(bare) * share)])
        assert Audio.load(path).samples.shape[1] == pytest.approx(counted * share, abs=4 * 1152)


def test_an_mp3_behind_a_tag_is_read(tmp_path):
    path = write_reference(tmp_path / "a.mp3", tone(0.5), "MPEG_LAYER_III", comment="x" * 3000)
    assert path.read_bytes()[:3] == b"ID3"
    assert Audio.load(path).samples.shape == (1, 24_000)


@pytest.mark.parametrize(
    "name",
    [
        "ünï ☃ 音.wav",
        " a b .wav",
        "a\nb.wav",
        "-o.wav",
        "a'\"$.wav",
        "raw.raw.wav",
        os.fsdecode(b"caf\xe9.flac"),
    ],
)
def test_any_file_name_works(tmp_path, name):
    if sys.platform != "linux" and ("\n" in name or not name.isprintable()):
        pytest.skip("only Linux lets any bytes be a name")
    audio = tone(0.1)
    path = audio.save(tmp_path / name)
    np.testing.assert_allclose(Audio.load(path).samples, audio.samples, atol=1e-4)
    assert [entry.name for entry in tmp_path.iterdir()] == [name]
    broken = path.rename(path.with_name(name + ".cut"))
    broken.write_bytes(b"RIFF")
    with pytest.raises(AudioError) as caught:
        Audio.load(broken)
    assert "\n" not in str(caught.value)
    str(caught.value).encode("utf-8")


def test_the_suffix_does_not_matter_when_reading(tmp_path):
    path = tone(0.1).save(tmp_path / "a.wav").rename(tmp_path / "a.raw")
    assert Audio.load(path).samples.shape == (1, 4_800)


# -- files that are refused --------------------------------------------------------------------------


def refused(path: Path, match: str | None, **options) -> None:
    for read in (lambda: Audio.load(path, **options), lambda: list(stream(path, **options))):
        with pytest.raises(AudioError, match=match) as caught:
            read()
        assert "\n" not in str(caught.value)
        assert path.name in str(caught.value)


def test_what_is_no_file_is_refused(tmp_path):
    refused(tmp_path / "none.wav", "No such file")
    (tmp_path / "dir.wav").mkdir()
    refused(tmp_path / "dir.wav", "a folder")
    (tmp_path / "empty.wav").touch()
    refused(tmp_path / "empty.wav", "is empty")
    (tmp_path / "text.wav").write_text("hello, this is text" * 10)
    refused(tmp_path / "text.wav", "not an audio file of a known format")
    with pytest.raises(AudioError, match="cannot be opened"):
        Audio.load("a\0b.wav")


def test_a_pipe_is_refused_without_waiting(tmp_path):
    if sys.platform == "win32":
        pytest.skip("Windows has no named pipes in folders")
    os.mkfifo(tmp_path / "pipe.wav")
    refused(tmp_path / "pipe.wav", "no regular file")


def test_an_unreadable_file_is_refused(tmp_path, monkeypatch):
    path = tone(0.1).save(tmp_path / "a.wav")

    def denied(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", denied)
    refused(path, r"cannot be opened \(Permission denied\)")


@pytest.mark.parametrize("fraction", [0.02, 0.3, 0.7, 0.95, 0.999])
@pytest.mark.parametrize("name", FILES)
def test_truncated_files_are_refused(tmp_path, name, fraction):
    path = write_reference(tmp_path / name, tone(1.0), FILES[name])
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * fraction)])
    refused(path, None)


@pytest.mark.parametrize("name", ["pcm16.wav", "pcm16.aiff", "pcm16.flac"])
def test_header_only_files_are_refused(tmp_path, name):
    path = tmp_path / name
    with AudioWriter(path, 48_000, 1) as writer:
        writer.write(np.zeros((1, 9_600), np.float32))
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"data") + 8 if b"data" in data else 60])
    refused(path, "header promises|without samples|cut off|not readable")


def test_files_of_no_samples_are_refused(tmp_path):
    for name in ("pcm16.wav", "pcm16.aiff"):
        soundfile.write(tmp_path / name, np.zeros((0, 1)), 48_000)
        refused(tmp_path / name, "holds no samples")


def test_a_lying_header_is_refused_without_memory(tmp_path):
    path = tone(0.1).save(tmp_path / "a.wav")
    data = bytearray(path.read_bytes())
    at = data.index(b"data") + 4
    data[at : at + 4] = struct.pack("<I", 2**31)
    path.write_bytes(data)
    tracemalloc.start()
    refused(path, "promises 2147483648 bytes of sound, 9600 are there")
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()

    path = tone(0.1).save(tmp_path / "a.aiff")
    data = bytearray(path.read_bytes())
    at = data.index(b"COMM") + 10
    data[at : at + 4] = struct.pack(">I", 2**31)
    path.write_bytes(data)
    refused(path, "promises")

    path = tone(0.1).save(tmp_path / "a.flac")
    data = bytearray(path.read_bytes())
    data[22:26] = struct.pack(">I", 2**31)
    path.write_bytes(data)
    refused(path, "s are allowed|damaged|cut off", max_seconds=3600)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_samples_that_are_not_finite_are_refused(tmp_path, bad, subtype):
    samples = np.zeros((50_000, 1))
    samples[49_000] = bad
    soundfile.write(tmp_path / "a.wav", samples, 48_000, subtype)
    refused(tmp_path / "a.wav", "NaN or infinite")


def test_doubles_beyond_float_are_refused(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.full((100, 1), 1e300), 48_000, "DOUBLE")
    refused(tmp_path / "a.wav", "infinite")


@pytest.mark.parametrize(
    ("name", "form", "subtype"),
    [
        ("a.wav", "WAV", "IMA_ADPCM"),
        ("b.wav", "WAV", "ULAW"),
        ("c.wav", "WAV", "GSM610"),
        ("d.aiff", "AIFF", "ALAW"),
        ("e.voc", "VOC", "PCM_16"),
        ("f.w64", "W64", "ULAW"),
        ("g.avr", "AVR", "PCM_16"),
        ("h.rf64", "RF64", "ULAW"),
        ("i.mat", "MAT5", "PCM_16"),
    ],
)
def test_other_formats_never_reach_a_decoder(tmp_path, monkeypatch, name, form, subtype):
    path = write_reference(tmp_path / name, tone(0.2), subtype, form=form)

    def opened(*_):
        raise RuntimeError("libsndfile was asked")

    monkeypatch.setattr("audiogen_core.sound_reader.sequential", lambda: opened)
    refused(path, "only PCM and float|not an audio file of a known format")


def test_rates_out_of_bounds_are_refused(tmp_path):
    soundfile.write(tmp_path / "slow.wav", np.zeros((100, 1)), 50)
    refused(tmp_path / "slow.wav", "50 Hz")
    soundfile.write(tmp_path / "wide.wav", np.zeros((100, 33)), 48_000)
    refused(tmp_path / "wide.wav", "33 channels")


def test_long_files_are_refused_before_they_are_decoded(tmp_path):
    path = tone(2.0).save(tmp_path / "a.wav")
    refused(path, r"2\.0 s of sound or more, 1\.5 s are allowed", max_seconds=1.5)
    assert Audio.load(path, max_seconds=2.0).duration == 2.0
    for bad in (0, -1, float("nan")):
        with pytest.raises(OptionError):
            Audio.load(path, max_seconds=bad)
        with pytest.raises(OptionError):
            list(stream(path, block_seconds=bad))


def test_memory_is_bounded_by_the_block(tmp_path):
    path = tmp_path / "long.flac"
    with AudioWriter(path, 48_000, 2) as writer:
        for _ in range(60):
            writer.write(np.zeros((2, 48_000), np.float32))
    tracemalloc.start()
    count = sum(block.shape[1] for block in stream(path, sample_rate=24_000, channels=1, block_seconds=1))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 60 * 24_000
    assert peak < 5e6


# -- writing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_saved_can_be_loaded(tmp_path, suffix):
    audio = tone(0.6, channels=2)
    path = audio.save(tmp_path / f"a{suffix}")
    read = Audio.load(path)
    assert read.samples.shape == audio.samples.shape
    tolerance = 0.6 / 2**15 if suffix in LOSSLESS else 0.5
    assert np.abs(read.samples - audio.samples).max() < tolerance
    assert list(tmp_path.iterdir()) == [path]


def test_equal_sound_gives_equal_bytes(tmp_path):
    audio = tone(0.4, channels=2)

    def save(name: str) -> list[Path]:
        subtypes = {".wav": "FLOAT", ".aiff": "FLOAT"}  # these would carry the time of day
        return [audio.save(tmp_path / f"{name}{suffix}", subtype=subtypes.get(suffix)) for suffix in SUFFIXES]

    first = save("a")
    time.sleep(1.1)  # the second is written at another second of the clock
    for one, other in zip(first, save("b"), strict=True):
        assert other.read_bytes() == one.read_bytes()
        assert Audio.load(other).samples.shape == audio.samples.shape


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_writing_in_blocks_gives_the_bytes_of_writing_whole(tmp_path, suffix):
    audio = tone(0.5, channels=2)
    whole = audio.save(tmp_path / f"a{suffix}")
    with AudioWriter(tmp_path / f"b{suffix}", 48_000, 2) as writer:
        for start in range(0, 24_000, 1_111):
            writer.write(audio.samples[:, start : start + 1_111])
    assert (tmp_path / f"b{suffix}").read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
@pytest.mark.parametrize("suffix", LOSSLESS)
def test_what_was_read_is_written_back_unchanged(tmp_path, suffix, subtype):
    extremes = Audio(np.array([[-1.0, -0.5, 0.0, 2**-15, 0.5, 1 - 2**-15]], np.float32), 48_000)
    read = Audio.load(extremes.save(tmp_path / f"a{suffix}", subtype=subtype))
    np.testing.assert_array_equal(read.samples, extremes.samples)
    noise = Audio.load(tone(0.3).save(tmp_path / f"b{suffix}", subtype=subtype))
    again = Audio.load(noise.save(tmp_path / f"c{suffix}", subtype=subtype))
    np.testing.assert_array_equal(again.samples, noise.samples)


def test_subtypes(tmp_path):
    audio = tone(0.1)
    for subtype, bound in [("PCM_16", 0.6 / 2**15), ("PCM_24", 0.6 / 2**23), ("FLOAT", 0), ("DOUBLE", 0)]:
        path = audio.save(tmp_path / f"{subtype}.wav", subtype=subtype)
        assert probe(path).subtype == subtype
        assert np.abs(Audio.load(path).samples - audio.samples).max() <= bound
    with pytest.raises(AudioError, match="not stored as VORBIS"):
        audio.save(tmp_path / "a.wav", subtype="VORBIS")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_clipping_is_done_and_told(tmp_path, suffix):
    audio = Audio(np.linspace(-2, 2, 4_800, dtype=np.float32)[None], 48_000)
    clipped = r"2400 samples beyond full scale were clipped \(peak 2\.00\)"
    with pytest.warns(ClippingWarning, match=clipped) as warned:
        path = audio.save(tmp_path / f"loud{suffix}")
    assert Path(warned[0].filename).name == "audio.py"
    if suffix in LOSSLESS:
        assert Audio.load(path).peak <= 1
        assert Audio.load(path).samples[0, -1] > 0.999


def test_floats_are_not_clipped(tmp_path):
    audio = Audio(np.linspace(-2, 2, 4_800, dtype=np.float32)[None], 48_000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path = audio.save(tmp_path / "a.wav", subtype="FLOAT")
    np.testing.assert_array_equal(Audio.load(path).samples, audio.samples)


@pytest.mark.parametrize(
    ("name", "rate", "channels", "match"),
    [
        ("a.xyz", 48_000, 1, r"cannot write \.xyz; known: \.wav, \.flac"),
        ("a", 48_000, 1, "without a suffix"),
        ("a.opus", 44_100, 1, r"8000, .*48000 Hz, not 44100; resample to"),
        ("a.mp3", 96_000, 1, "resample to one of these"),
        ("a.mp3", 48_000, 3, "holds 1 to 2 channels"),
        ("a.flac", 48_000, 9, "holds 1 to 8 channels"),
        ("none/a.wav", 48_000, 1, "the folder .* does not exist"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, name, rate, channels, match):
    with pytest.raises(AudioError, match=match):
        tone(0.1, sample_rate=rate, channels=channels).save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_the_writer_counts_what_it_was_given(tmp_path, monkeypatch):
    with AudioWriter(tmp_path / "a.wav", 48_000, 2) as writer:
        writer.write(np.zeros((2, 10), np.float32))
        assert writer.samples == 10
        writer.write(np.zeros((2, 100_000), np.float32))
    assert writer.samples == 100_010
    monkeypatch.setattr("audiogen_core.sound_writer._LARGEST", 1_000)
    with (
        pytest.raises(AudioError, match="at most 4 GiB"),
        AudioWriter(tmp_path / "b.wav", 48_000, 2) as writer,
    ):
        writer.write(np.zeros((2, 251), np.float32))
    with AudioWriter(tmp_path / "b.flac", 48_000, 2) as writer:
        writer.write(np.zeros((2, 251), np.float32))


def test_a_folder_is_not_written_over(tmp_path):
    (tmp_path / "a.wav").mkdir()
    with pytest.raises(AudioError, match="a folder"):
        tone(0.1).save(tmp_path / "a.wav")


def test_a_failed_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.wav"
    tone(0.1).save(path)
    old = path.read_bytes()
    with pytest.raises(RuntimeError, match="mine"), AudioWriter(path, 48_000, 1) as writer:
        writer.write(np.zeros((1, 100_000), np.float32))
        raise RuntimeError("mine")
    with pytest.raises(FileNotFoundError), AudioWriter(path, 48_000, 1):
        raise FileNotFoundError("theirs stays theirs")
    for block in (np.zeros((2, 10)), np.zeros(10), np.full((1, 10), np.nan)):
        with pytest.raises(AudioError), AudioWriter(path, 48_000, 1) as writer:
            writer.write(block)
    with pytest.raises(AudioError, match="no samples"), AudioWriter(path, 48_000, 1):
        pass
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_a_saved_file_has_the_usual_rights(tmp_path):
    old = os.umask(0o022)
    try:
        path = tone(0.1).save(tmp_path / "a.wav")
    finally:
        os.umask(old)
    if sys.platform != "win32":
        assert stat.S_IMODE(path.stat().st_mode) == 0o644


@settings(max_examples=40)
@given(
    st.integers(1, 3),
    st.integers(1, 3_000),
    st.sampled_from([8_000, 11_025, 44_100, 48_000]),
    st.sampled_from(LOSSLESS),
    st.integers(0, 2**31),
)
def test_round_trips(tmp_path_factory, channels, length, rate, suffix, seed):
    samples = np.random.default_rng(seed).uniform(-1, 1, (channels, length)).astype(np.float32)
    path = tmp_path_factory.mktemp("trip") / f"a{suffix}"
    read = Audio.load(Audio(samples, rate).save(path, subtype="PCM_24"))
    assert read.sample_rate == rate
    np.testing.assert_allclose(read.samples, samples, atol=3e-7)


def test_all_our_errors_are_of_the_family():
    assert issubclass(AudioError, AudiogenError)
    assert issubclass(AudioMismatch, AudioError)

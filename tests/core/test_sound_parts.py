"""All of a file is read: files and streams in a row, MP3 that counts nothing, headers that are not true."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiogen_core import mp3_frames
from audiogen_core.audio import Audio, SoundWarning, probe, stream
from audiogen_core.errors import AudioError
from support.sounds import tone, write_reference

FIXTURES = Path(__file__).parents[1] / "fixtures" / "sound"


def mp3(path: Path, audio: Audio, mode: str = "VARIABLE", level: float = 0.5) -> bytes:
    """An MP3 file that counts its frames; its bytes."""
    soundfile.write(
        path, audio.samples.T, audio.sample_rate, format="MP3", bitrate_mode=mode, compression_level=level
    )
    return path.read_bytes()


def bare(data: bytes) -> bytes:
    """An MP3 file without the frame that counts the others."""
    start = data.index(b"\xff")
    frame = mp3_frames.header(data[start : start + 4])
    assert frame is not None and (b"Xing" in data[:200] or b"Info" in data[:200])
    return data[start + frame.size :]


def frames_of(data: bytes) -> int:
    at, count = 0, 0
    while (frame := mp3_frames.header(data[at : at + 4])) is not None:
        at, count = at + frame.size, count + 1
    assert at == len(data)
    return count


def load(path: Path, data: bytes, **options) -> Audio:
    """Loaded without a warning, whole and as a stream."""
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = Audio.load(path, **options)
        blocks = list(stream(path, block_seconds=0.31, **options))
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1), whole.samples)
    info = probe(path)
    assert info.frames == whole.samples.shape[1] and info.counted
    return whole


# -- MP3 ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [44_100, 48_000, 32_000, 22_050, 24_000, 16_000, 11_025, 12_000, 8_000])
@pytest.mark.parametrize("mode", ["VARIABLE", "AVERAGE", "CONSTANT"])
def test_an_mp3_that_does_not_count_is_read_to_the_last_sample(tmp_path, rate, channels, mode):
    quiet = tone(1.7, sample_rate=rate, channels=channels)
    samples = quiet.samples.copy()
    samples[:, rate // 2 : rate] *= 1e-4  # so that the bit rate varies
    data = mp3(tmp_path / "a.mp3", Audio(samples, rate), mode)
    counted = Audio.load(tmp_path / "a.mp3").samples
    assert counted.shape == samples.shape
    cut = bare(data)
    read = load(tmp_path / "b.mp3", cut).samples
    assert read.shape[1] == frames_of(cut) * (1152 if rate >= 32_000 else 576)
    late = 576 + 529  # LAME's delay and the decoder's
    np.testing.assert_allclose(read[:, late : late + counted.shape[1]], counted, atol=1e-5)


def test_the_file_of_a_user_that_was_cut_to_a_sixth():
    read = Audio.load(FIXTURES / "vbr_without_xing.mp3")
    assert read.samples.shape == (1, 266_112)


def test_a_vbri_header_counts_too(tmp_path):
    cut = bare(mp3(tmp_path / "a.mp3", tone(1.3)))
    without = load(tmp_path / "b.mp3", cut).samples
    count = frames_of(cut)
    head = bytes([0xFF, 0xFB, 0x90 | cut[2] & 0x0C, cut[3]])
    counter = head + bytes(32) + b"VBRI" + struct.pack(">HHHIIHHHH", 1, 0, 75, len(cut), count, 0, 0, 0, 0)
    counter += bytes(mp3_frames.header(head).size - len(counter))
    np.testing.assert_array_equal(load(tmp_path / "c.mp3", counter + cut).samples, without)
    (tmp_path / "d.mp3").write_bytes(counter + cut[: len(cut) // 2])
    with pytest.raises(AudioError, match=r"cut off: \d+ frames of MP3 instead of"):
        Audio.load(tmp_path / "d.mp3")


@pytest.mark.parametrize("mode", ["VARIABLE", "CONSTANT"])
@pytest.mark.parametrize("counts", [(True, True), (True, False), (False, True), (True, False, True)])
def test_mp3_files_in_a_row_are_read_one_after_the_other(tmp_path, counts, mode):
    clips = [tone(0.9 + 0.2 * index, seed=index, channels=2) for index in range(len(counts))]
    datas = [mp3(tmp_path / "a.mp3", clip, mode) for clip in clips]
    parts = [data if counted else bare(data) for data, counted in zip(datas, counts, strict=True)]
    apart = [load(tmp_path / "b.mp3", part).samples for part in parts]
    joined = load(tmp_path / "c.mp3", b"".join(parts)).samples
    np.testing.assert_allclose(joined, np.concatenate(apart, axis=1), atol=1e-6)


def test_tags_between_mp3_files_are_no_sound(tmp_path):
    first = mp3(tmp_path / "a.mp3", tone(0.8))
    tags = b"ID3\x04\0\0\0\0\x01\x48" + bytes(200), b"TAG" + bytes(125)
    ape = b"APETAGEX" + struct.pack("<III", 2000, 96, 0) + bytes(12 + 64) + b"APETAGEX"
    ape += struct.pack("<IIII", 2000, 96, 0, 1 << 31) + bytes(8)
    once = load(tmp_path / "b.mp3", first).samples
    for between in (*tags, bytes(3000), b"".join(tags)):
        twice = load(tmp_path / "c.mp3", tags[0] + first + between + first + tags[1])
        np.testing.assert_allclose(twice.samples, np.tile(once, 2), atol=1e-6)
    np.testing.assert_allclose(load(tmp_path / "d.mp3", first + ape + tags[1]).samples, once, atol=1e-6)


@pytest.mark.parametrize(("rate", "channels"), [(44_100, 1), (48_000, 2), (24_000, 1)])
def test_an_mp3_that_changes_on_the_way_is_refused_by_name(tmp_path, rate, channels):
    first = mp3(tmp_path / "a.mp3", tone(0.8))
    second = mp3(tmp_path / "b.mp3", tone(0.8, sample_rate=rate, channels=channels))
    for tail in (second, bare(second)):
        path = tmp_path / "c.mp3"
        path.write_bytes(first + tail)
        with pytest.raises(
            AudioError, match=rf"changes from 48000 Hz, 1 channels to {rate} Hz.*after 0\.8 s"
        ):
            Audio.load(path)


@pytest.mark.parametrize("zeros", [1, 500, 70_000])
def test_zeros_behind_the_tag_are_passed_over(tmp_path, zeros):
    data = mp3(tmp_path / "a.mp3", tone(0.8))
    tag = b"ID3\x03\0\0\0\0\x01\x48" + bytes(200)
    for start in (tag, b""):
        read = load(tmp_path / "b.mp3", start + bytes(zeros) + data)
        np.testing.assert_array_equal(read.samples, Audio.load(tmp_path / "a.mp3").samples)


@pytest.mark.parametrize("into", [1, 77, 300])
def test_an_mp3_that_begins_inside_a_frame_is_read(tmp_path, into):
    cut = bare(mp3(tmp_path / "a.mp3", tone(1.5), "CONSTANT"))
    first = mp3_frames.header(cut[:4])
    whole = load(tmp_path / "b.mp3", cut).samples
    read = load(tmp_path / "c.mp3", cut[into % first.size :]).samples
    assert read.shape[1] == whole.shape[1] - 1152
    np.testing.assert_allclose(read[:, 5000:], whole[:, 1152 + 5000 :], atol=1e-5)
    assert np.abs(read).max() < 1


def test_what_is_damaged_between_frames_is_told_and_the_rest_is_read(tmp_path):
    cut = bytearray(bare(mp3(tmp_path / "a.mp3", tone(3.0), "CONSTANT")))
    garbage = np.random.default_rng(1).bytes(9000)
    cut[len(cut) // 2 : len(cut) // 2] = garbage
    path = tmp_path / "b.mp3"
    path.write_bytes(cut)
    with pytest.warns(SoundWarning, match=r"b\.mp3: \d+ bytes between the frames of MP3 are damaged"):
        read = Audio.load(path)
    assert read.duration == pytest.approx(3.0, abs=0.12)


def test_a_count_that_is_too_large_is_a_file_that_was_cut_off(tmp_path):
    data = mp3(tmp_path / "a.mp3", tone(1.0))
    at = data.index(b"Xing") + 8
    count = int.from_bytes(data[at : at + 4], "big")
    path = tmp_path / "b.mp3"
    path.write_bytes(data[:at] + (count + 2).to_bytes(4, "big") + data[at + 4 :] + bytes(10))
    with pytest.raises(AudioError, match=f"cut off: {count} frames of MP3 instead of {count + 2}"):
        Audio.load(path)


@pytest.mark.parametrize("stated", [0, 1, 20])
def test_a_count_that_is_too_small_cuts_nothing(tmp_path, stated):
    data = mp3(tmp_path / "a.mp3", tone(1.7, channels=2))
    whole = load(tmp_path / "b.mp3", bare(data)).samples
    at = data.index(b"Xing") + 8
    path = tmp_path / "c.mp3"
    path.write_bytes(data[:at] + stated.to_bytes(4, "big") + data[at + 4 :])
    read = Audio.load(path).samples
    assert whole.shape[1] - 2304 <= read.shape[1] <= whole.shape[1]  # delay and padding may be taken off
    late = whole.shape[1] - read.shape[1]
    np.testing.assert_allclose(read[:, 40_000:60_000], whole[:, 40_000 + late : 60_000 + late], atol=0.01)


def test_a_tag_that_says_it_is_longer_than_the_file_hides_no_sound(tmp_path):
    data = mp3(tmp_path / "a.mp3", tone(0.8))
    path = tmp_path / "b.mp3"
    path.write_bytes(b"ID3\x03\0\0\x7f\x7f\x7f\x7f" + bytes(50) + data)
    read = Audio.load(path).samples
    np.testing.assert_array_equal(read, Audio.load(tmp_path / "a.mp3").samples)


def test_names_of_counting_frames_inside_others_take_no_time(tmp_path):
    head = bytes([0xFF, 0xF3, 0x14, 0xC0])
    frame = head + bytes(12) + b"Info"
    path = tmp_path / "a.mp3"
    path.write_bytes(frame.ljust(mp3_frames.header(head).size, b"\0") * 40_000)
    began = time.process_time()
    assert probe(path).frames == 40_000 * 576
    assert time.process_time() - began < 2


def test_libmpg123_says_nothing_on_the_terminal(tmp_path):
    rng = np.random.default_rng(3)
    data = mp3(tmp_path / "a.mp3", tone(2.0, channels=2))
    for seed in range(12):
        broken = bytearray(data)
        for at in rng.integers(200, len(data), 60):
            broken[at] = rng.integers(256)
        (tmp_path / f"{seed}.mp3").write_bytes(b"ID3\x04\0\0\0\0\0\x14COMM\0\0\0\x05\0\0\0ab" + broken)
    code = (
        "import sys, pathlib, warnings\n"
        "from audiogen_core.audio import Audio\n"
        "from audiogen_core.errors import AudioError\n"
        "warnings.simplefilter('ignore')\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).glob('*.mp3')):\n"
        "    try:\n        Audio.load(path)\n"
        "    except AudioError:\n        pass\n"
        "print('done', file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "done\n")


# -- Ogg, FLAC, WAV in a row --------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "subtype"), [("a.ogg", "VORBIS"), ("a.opus", "OPUS"), ("a.flac", "PCM_16")])
@pytest.mark.parametrize("count", [2, 5])
def test_streams_in_a_row_are_all_read(tmp_path, name, subtype, count):
    paths = [
        write_reference(
            tmp_path / f"{index}{name[1:]}", tone(0.3 + index / 7, seed=index, channels=2), subtype
        )
        for index in range(count)
    ]
    apart = np.concatenate([Audio.load(path).samples for path in paths], axis=1)
    joined = load(tmp_path / name, b"".join(path.read_bytes() for path in paths))
    np.testing.assert_array_equal(joined.samples, apart)
    with pytest.raises(AudioError, match="are allowed"):
        Audio.load(tmp_path / name, max_seconds=joined.duration - 0.01)


def test_more_streams_than_anybody_puts_in_a_row(tmp_path):
    path = tmp_path / "a.flac"
    path.write_bytes(b"fLaC\0\0\0\x22" * 1_000_000)
    began = time.process_time()
    with pytest.raises(AudioError, match="more than 1000 files in a row"):
        probe(path)
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    ("name", "subtype"), [("a.ogg", "VORBIS"), ("a.flac", "PCM_16"), ("a.wav", "PCM_16")]
)
def test_a_stream_of_another_kind_is_refused_by_name(tmp_path, name, subtype):
    first = write_reference(tmp_path / f"1{name}", tone(0.5, channels=2), subtype).read_bytes()
    for rate, channels in [(44_100, 2), (48_000, 1)]:
        other = write_reference(
            tmp_path / f"2{name}", tone(0.3, sample_rate=rate, channels=channels), subtype
        ).read_bytes()
        (tmp_path / name).write_bytes(first + other)
        said = rf"changes from 48000 Hz, 2 channels to {rate} Hz, {channels} channels after 0\.5 s"
        with pytest.raises(AudioError, match=said):
            Audio.load(tmp_path / name)


def test_sounds_beside_each_other_are_refused(tmp_path):
    datas = [
        write_reference(tmp_path / f"{index}.ogg", tone(0.2, seed=index), "VORBIS").read_bytes()
        for index in range(2)
    ]
    starts = [data.index(b"OggS", 1) for data in datas]
    path = tmp_path / "c.ogg"
    heads = b"".join(data[:start] for data, start in zip(datas, starts, strict=True))
    path.write_bytes(heads + b"".join(data[start:] for data, start in zip(datas, starts, strict=True)))
    with pytest.raises(AudioError, match="holds several sounds beside each other"):
        Audio.load(path)


def test_a_chain_whose_last_stream_has_no_end_is_refused(tmp_path):
    data = write_reference(tmp_path / "a.ogg", tone(0.7), "VORBIS").read_bytes()
    (tmp_path / "b.ogg").write_bytes(data + data[: len(data) // 2])
    with pytest.raises(AudioError, match="has no end"):
        Audio.load(tmp_path / "b.ogg")


@pytest.mark.parametrize("forms", [("WAV",) * 3, ("W64",) * 3, ("RF64",) * 3, ("RF64", "WAV", "W64")])
def test_wav_files_in_a_row_are_all_read(tmp_path, forms):
    clips = [tone(0.2 + 0.1 * index, seed=index) for index in range(3)]
    datas = [
        write_reference(tmp_path / "a.wav", clip, "PCM_16", form=form).read_bytes()
        for clip, form in zip(clips, forms, strict=True)
    ]
    joined = load(tmp_path / "b.wav", b"".join(datas))
    wanted = np.concatenate([clip.samples for clip in clips], axis=1)
    np.testing.assert_allclose(joined.samples, wanted, atol=2**-15)


# -- headers of WAV and its kin ------------------------------------------------------------------------


def wav_with(path: Path, audio: Audio, riff: int | None, data: int | None, behind: bytes = b"") -> bytes:
    """A WAV file with other sizes in its header."""
    made = bytearray(write_reference(path, audio, "PCM_16").read_bytes())
    at = made.index(b"data") + 4
    if riff is not None:
        made[4:8] = struct.pack("<I", riff)
    if data is not None:
        made[at : at + 4] = struct.pack("<I", data)
    return bytes(made) + behind


@pytest.mark.parametrize(
    ("riff", "data"),
    [
        (0x7FFFF024, 0x7FFFF000),  # sox
        (0x7FFFFFFF, 0x7FFFFFFF - 36),
        (None, 0x7FFFFFFF),
        (0, 0x7FFFFFFF),
        (0x80000024, 0x80000000),  # arecord
        (0xFFFFFFFF, 0xFFFFFFFF),  # ffmpeg
        (0xFFFFFFFF, 0xFFFFFFFF - 36),
        (None, 0xFFFFFFFF),
        (0, 0xFFFFFFFF),
        (0, 0),  # a recorder that died
        (36, 0),
        (None, 0),
        (0xFFFFFFFF, 0),
        (0x7FFFF024, 0),
    ],
)
@pytest.mark.parametrize(("rate", "channels"), [(44_100, 2), (8_000, 1), (96_000, 3)])
def test_a_wav_of_a_pipe_or_a_dead_recorder_is_read_and_told(tmp_path, riff, data, rate, channels):
    silent = np.concatenate(
        [np.zeros((channels, 50)), tone(0.3, sample_rate=rate, channels=channels).samples], 1
    )
    audio = Audio(silent, rate)
    path = tmp_path / "a.wav"
    path.write_bytes(wav_with(path, audio, riff, data))
    with pytest.warns(SoundWarning, match=r"a\.wav: the header .*; it was read to its end"):
        read = Audio.load(path)
    np.testing.assert_allclose(read.samples, audio.samples, atol=2**-15)
    with pytest.warns(SoundWarning):
        assert probe(path).frames == audio.samples.shape[1]


@pytest.mark.parametrize("size", [0, 24, 2**63 - 1, 2**64 - 1])
@pytest.mark.parametrize("form", ["W64", "RF64"])
def test_sizes_of_64_bits_that_nobody_knew_are_told_too(tmp_path, form, size):
    audio = tone(0.3, channels=2)
    made = bytearray(write_reference(tmp_path / "a.wav", audio, "PCM_16", form=form).read_bytes())
    places = [16, made.index(b"data") + 16] if form == "W64" else [20, 28]
    for at in places:  # ffmpeg's Wave64 into a pipe has the two largest numbers
        made[at : at + 8] = struct.pack("<Q", size if form == "W64" or size != 24 else 0)
    path = tmp_path / "b.wav"
    path.write_bytes(made)
    with pytest.warns(SoundWarning, match="it was read to its end"):
        read = Audio.load(path)
    np.testing.assert_allclose(read.samples, audio.samples, atol=2**-15)
    made[places[1] : places[1] + 8] = struct.pack("<Q", 2**62 + len(made))  # one bit is another
    path.write_bytes(made)
    with pytest.raises(AudioError, match="it was cut off"):
        Audio.load(path)


@pytest.mark.parametrize("kind", ["WAV", "AIFF"])
@pytest.mark.parametrize("hollow", [True, False])
def test_thousands_of_headers_take_no_time(tmp_path, kind, hollow):
    """Hollow ones, each of which is a chunk of those before it, or whole files of four samples."""
    whole = write_reference(
        tmp_path / "a.wav", Audio(np.zeros((1, 4), np.float32), 8000), "PCM_16", form=kind
    )
    data, order = whole.read_bytes(), "<" if kind == "WAV" else ">"
    part = data[:4] + struct.pack(f"{order}I", 4) + data[8:12] if hollow else data
    path = tmp_path / "b.wav"
    path.write_bytes(part * 20_000 + data[12:])
    began = time.process_time()
    with pytest.raises(AudioError, match=r"more than|without samples"):
        probe(path)
    path.write_bytes(part * 900 + data[12:])
    if hollow and kind == "AIFF":
        with pytest.raises(AudioError, match="not readable"):
            probe(path)
    else:
        assert probe(path).frames == (4 if hollow else 3600)
    assert time.process_time() - began < 2


def test_half_a_frame_at_the_end_of_a_pipe_is_left(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(wav_with(path, tone(0.1, channels=2), 0xFFFFFFFF, 0xFFFFFFFF, b"\1\2\3"))
    with pytest.warns(SoundWarning):
        assert Audio.load(path).samples.shape == (2, 4_800)


@pytest.mark.parametrize("size", [2**31, 3_000_000_000, 0xF0000000])
def test_a_large_wav_that_was_cut_is_no_pipe(tmp_path, size):
    path = tmp_path / "a.wav"
    for riff in (None, size + 36) if size != 2**31 else (None,):
        path.write_bytes(wav_with(path, tone(0.1), riff, size))
        with pytest.raises(AudioError, match=f"promises {size} bytes of sound, 9600 are there"):
            Audio.load(path)


def test_chunks_and_tags_behind_the_sound_are_not_read_as_sound(tmp_path):
    audio = tone(0.1)
    path = tmp_path / "a.wav"
    for behind in (b"LIST\x04\0\0\0INFO", b"id3 \x03\0\0\0abc\0", b"ID3\4" + bytes(60), b"TAG" + bytes(125)):
        assert load(path, wav_with(path, audio, None, None, behind)).samples.shape == (1, 4_800)
    path.write_bytes(wav_with(path, audio, None, None, b"\x01\x02" * 500))
    with pytest.warns(SoundWarning, match="1000 bytes behind the sound are left out"):
        assert Audio.load(path).samples.shape == (1, 4_800)
    path.write_bytes(wav_with(path, audio, None, 0)[:44] + b"LIST\x04\0\0\0INFO")
    with pytest.raises(AudioError, match="holds no samples"):
        Audio.load(path)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize(("form", "channels"), [("RF64", 2), ("W64", 1), ("W64", 5), ("RF64", 6)])
def test_rf64_and_w64_are_read(tmp_path, form, channels, subtype):
    audio = tone(0.2, channels=channels, sample_rate=44_100)
    path = write_reference(tmp_path / "a.bin", audio, subtype, form=form)
    read = load(tmp_path / "b.wav", path.read_bytes())
    np.testing.assert_allclose(read.samples, audio.samples, atol=0.01 if subtype == "PCM_U8" else 2**-15)
    info = probe(path)
    assert (info.format, info.subtype, info.sample_rate) == (form, subtype, 44_100)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(AudioError, match="cut off"):
        Audio.load(path)


def test_bw64_is_read_and_an_rf64_that_was_never_finished_too(tmp_path):
    audio = tone(0.2, channels=2)
    path = write_reference(tmp_path / "a.bin", audio, "PCM_16", form="RF64")
    data = path.read_bytes()
    assert load(tmp_path / "b.wav", b"BW64" + data[4:]).samples.shape == audio.samples.shape
    at = data.index(b"ds64") + 8
    path.write_bytes(data[:at] + bytes(24) + data[at + 24 :])
    with pytest.warns(SoundWarning, match="never finished"):
        assert Audio.load(path).samples.shape == audio.samples.shape


@pytest.mark.parametrize(
    "form", ["RF64", *(pytest.param(form, marks=pytest.mark.slow) for form in ("BW64", "W64", "WAV"))]
)
def test_files_above_4_gb_are_read_to_their_end(tmp_path, form):
    """Sparse files, with sound in the last second alone."""
    size, rate, row = (4 << 30) + 96_000 * 256, 96_000, 32 * 8
    frames = size // row
    form16 = struct.pack("<HHIIHH", 3, 32, rate, rate * row, row, 64)
    if form == "W64":
        tail = bytes.fromhex("f3acd3118cd100c04f8edb8a")
        head = b"riff" + bytes.fromhex("2e91cf11a5d628db04c10000") + struct.pack("<Q", size + 104)
        head += b"wave" + tail + b"fmt " + tail + struct.pack("<Q", 40) + form16
        head += b"data" + tail + struct.pack("<Q", size + 24)
    elif form == "WAV":  # a recorder that counts with 32 bits
        head = b"RIFF" + struct.pack("<I", (size + 36) % 2**32) + b"WAVEfmt " + struct.pack("<I", 16) + form16
        head += b"data" + struct.pack("<I", size % 2**32)
    else:
        head = (
            form.encode() + b"\xff" * 4 + b"WAVEds64" + struct.pack("<IQQQI", 28, size + 72, size, frames, 0)
        )
        head += b"fmt " + struct.pack("<I", 16) + form16 + b"data" + b"\xff" * 4
    path = tmp_path / "large.wav"
    last = np.full((rate, 32), 0.25)
    with path.open("wb") as file:
        file.write(head)
        file.seek(len(head) + size - last.nbytes)
        file.write(last.tobytes())
    if path.stat().st_blocks * 512 > 1 << 30:
        pytest.skip("this file system has no sparse files")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert probe(path).frames == frames
        *_, tail_block = stream(path, channels=1, block_seconds=0.5)
    assert [str(each.message).partition(": ")[2][:15] for each in told] == (
        ["the header says"] * 2 if form == "WAV" else []
    )
    np.testing.assert_array_equal(tail_block[:, -1000:], 0.25)
    with pytest.raises(AudioError, match="s of sound or more"):
        Audio.load(path, max_seconds=60)


def test_ours_is_what_libsndfile_reads_of_a_wav(tmp_path):
    for subtype in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"):
        for form in ("WAV", "WAVEX"):
            path = write_reference(tmp_path / "a.wav", tone(0.3, channels=3), subtype, form=form)
            theirs, _ = soundfile.read(path, dtype="float32")
            np.testing.assert_array_equal(Audio.load(path).samples, theirs.T)
            assert probe(path).format == form


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_floats_far_beyond_full_scale_are_told(tmp_path, subtype):
    loud = Audio(tone(0.3).samples * 32_767, 48_000)
    path = write_reference(tmp_path / "a.wav", loud, subtype)
    with pytest.warns(SoundWarning, match=r"a\.wav: samples reach \d+.* where full scale is 1") as told:
        Audio.load(path)
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Audio.load(write_reference(tmp_path / "b.wav", Audio(tone(0.3).samples * 8, 48_000), subtype))


# -- headers of AIFF -----------------------------------------------------------------------------------


def aiff_with(
    path: Path,
    audio: Audio,
    form: int | None = None,
    frames: int | None = None,
    sound: int | None = None,
    subtype: str = "PCM_16",
) -> bytes:
    """An AIFF file with other sizes in its header."""
    made = bytearray(write_reference(path, audio, subtype).read_bytes())
    for at, value in (
        (4, form), (made.index(b"COMM") + 10, frames), (made.index(b"SSND") + 4, sound)
    ):  # fmt: skip
        if value is not None:
            made[at : at + 4] = struct.pack(">I", value)
    return bytes(made)


@pytest.mark.parametrize(
    ("form", "frames", "sound"),
    [
        (0x7F00002E, 0x7F000000, 0x7F000008),  # sox, whose numbers are of whole rows
        (0x7FFFFFFF, 0x7FFFFFFF, 0x7FFFFFFF),
        (0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF),
        (0, 0, 0),  # ffmpeg
        (46, 0, 8),  # what libsndfile writes before there is sound: a recorder that died
        (None, 0, 8),
        (None, None, 0),
        (None, 0, None),
        (0, 17, None),
    ],
)
@pytest.mark.parametrize(("rate", "channels"), [(44_100, 2), (8_000, 1), (96_000, 4)])
def test_an_aiff_of_a_pipe_or_a_dead_recorder_is_read_and_told(tmp_path, form, frames, sound, rate, channels):
    audio = tone(0.3, sample_rate=rate, channels=channels)
    if frames == 0x7F000000:
        frames //= 2 * channels
    path = tmp_path / "a.aiff"
    path.write_bytes(aiff_with(path, audio, form, frames, sound))
    with pytest.warns(SoundWarning, match=r"a\.aiff: the header .*; it was read to its end"):
        read = Audio.load(path)
    np.testing.assert_allclose(read.samples, audio.samples, atol=2**-15)
    with pytest.warns(SoundWarning):
        assert probe(path).frames == audio.samples.shape[1]


@pytest.mark.parametrize("size", [9_607, 9_610, 60_000, 2**31 + 9_608, 3_000_000_000, 0xF0000000])
def test_an_aiff_that_was_cut_is_no_pipe(tmp_path, size):
    """Or one whose size was damaged: its samples are counted once more, and are there."""
    path = tmp_path / "a.aiff"
    data = aiff_with(path, tone(0.1), sound=size)
    assert len(data) == data.index(b"SSND") + 8 + 9_608
    path.write_bytes(data)
    with pytest.raises(AudioError, match=r"promises \d+ bytes of sound, \d+ are there; it was cut off"):
        Audio.load(path)


def test_chunks_behind_an_aiff_are_no_sound_and_other_bytes_are_told(tmp_path):
    path, audio = tmp_path / "a.aiff", tone(0.2, channels=2)
    plain = aiff_with(path, audio)
    whole = load(path, plain).samples
    named = b"NAME" + struct.pack(">I", 5) + b"piece\0"
    for tail in (named, 3 * named, b"ID3\x04" + bytes(90), bytes(999)):
        np.testing.assert_array_equal(load(path, plain + tail).samples, whole)
    path.write_bytes(plain + b"\x17\x03" * 50)
    with pytest.warns(SoundWarning, match="100 bytes behind the sound are left out"):
        np.testing.assert_array_equal(Audio.load(path).samples, whole)
    empty = aiff_with(path, audio, frames=0, sound=8)
    path.write_bytes(empty[: empty.index(b"SSND") + 16] + named)
    with pytest.raises(AudioError, match="holds no samples"):
        Audio.load(path)


def test_aiffs_in_a_row_are_read_one_after_the_other(tmp_path):
    clips = [tone(0.1 + 0.1 * index, seed=index, channels=2) for index in range(3)]
    datas = [aiff_with(tmp_path / "a.aiff", clip, subtype="PCM_24") for clip in clips]
    joined = load(tmp_path / "b.aiff", b"".join(datas)).samples
    np.testing.assert_allclose(joined, np.concatenate([clip.samples for clip in clips], 1), atol=2**-23)
    died = aiff_with(tmp_path / "a.aiff", clips[2], 46, 0, 8, "PCM_24")
    (tmp_path / "c.aiff").write_bytes(b"".join(datas[:2]) + died)
    with pytest.warns(SoundWarning, match="never finished"):
        np.testing.assert_array_equal(Audio.load(tmp_path / "c.aiff").samples, joined)
    other = aiff_with(tmp_path / "a.aiff", tone(0.1, sample_rate=44_100, channels=2), subtype="PCM_24")
    (tmp_path / "d.aiff").write_bytes(datas[0] + other)
    with pytest.raises(AudioError, match=r"changes from 48000 Hz.* to 44100 Hz"):
        Audio.load(tmp_path / "d.aiff")


def test_an_aiff_above_4_gb_is_refused_where_it_cannot_count_them(tmp_path):
    path = tmp_path / "a.aiff"
    for sound in (8, None):
        path.write_bytes(aiff_with(path, tone(0.1), 46, 0 if sound else None, sound))
        with path.open("r+b") as file:
            file.truncate((4 << 30) + 5000)
            file.seek(-1000, os.SEEK_END)
            file.write(b"\1" * 1000)
        with pytest.raises(AudioError, match="more than 4 GiB"):
            Audio.load(path)


# -- no regular files ----------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no named pipes in folders")
@pytest.mark.parametrize("words", [["info"], ["plot"], ["decode", "-o", "OUT.wav"], ["encode", "-o", "OUT"]])
def test_no_command_waits_for_a_pipe_or_reads_a_device(tmp_path, words):
    os.mkfifo(tmp_path / "pipe.wav")
    for path in (tmp_path / "pipe.wav", Path("/dev/zero"), Path("/dev/tty")):
        command = [sys.executable, "-m", "audiogen_core", words[0], path, *words[1:]]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, cwd=tmp_path, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 1
        said = "not a file of codes" if words[0] == "decode" and path.suffix else "regular file"
        assert said in done.stderr and done.stderr.count("\n") == 1

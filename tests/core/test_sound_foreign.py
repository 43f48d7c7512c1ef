"""M4A, WMA, WebM and the rest by FFmpeg: read, bounded, told how where the extra is missing."""

from __future__ import annotations

import importlib.util
import struct
import sys
import threading
import time
import warnings
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest

from audiogen_core.audio import Audio, probe, stream
from audiogen_core.containers import UnknownFormat
from audiogen_core.errors import AudioError
from support.foreign import LOSSLESS, write_foreign
from support.sounds import tone

FIXTURES = Path(__file__).parents[1] / "fixtures" / "sound"
KINDS = {
    "aac.m4a": ("aac", None),
    "alac.m4a": ("alac", None),
    "aac.mp4": ("aac", None),
    "aac.3gp": ("aac", None),
    "pcm.mov": ("pcm_s16le", None),
    "aac.aac": ("aac", "adts"),
    "wmav2.wma": ("wmav2", None),
    "wmav1.wma": ("wmav1", None),
    "opus.webm": ("libopus", None),
    "opus.mka": ("libopus", None),
    "flac.mka": ("flac", None),
    "flac.ogg": ("flac", "ogg"),
    "wavpack.wv": ("wavpack", None),
    "tta.tta": ("tta", None),
    "ac3.ac3": ("ac3", None),
    "mp3.avi": ("libmp3lame", None),
    "aac.flv": ("aac", None),
    "pcm.caf": ("pcm_s24le", None),
    "alac.caf": ("alac", None),
    "mp3.caf": ("libmp3lame", None),
    "pcm.au": ("pcm_s16be", None),
    "mulaw.au": ("pcm_mulaw", None),
}


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("name", KINDS)
def test_what_ffmpeg_writes_is_read(tmp_path, name, channels):
    codec, form = KINDS[name]
    rate = 44_100 if name.endswith(("flv", "3gp")) else 48_000
    clip = tone(1.3, sample_rate=rate, channels=channels)
    path = write_foreign(tmp_path / name, clip, codec, form=form, bit_rate=128_000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = Audio.load(path)
    assert (read.sample_rate, read.channels) == (rate, channels)
    assert read.samples.shape[1] == pytest.approx(clip.samples.shape[1], abs=4096)
    if name.startswith(("aac.m", "alac", "aac.3", "pcm", "mulaw")):  # MP4 says it to the sample
        assert read.samples.shape == clip.samples.shape
    if codec in LOSSLESS:
        np.testing.assert_allclose(
            read.samples, clip.samples, atol=2**-6 if codec in ("wavpack", "tta") else 2**-14
        )
    spectrum = np.abs(np.fft.rfft(read.samples[0, 4096 : 4096 + rate // 2]))
    assert abs(2 * spectrum.argmax() - 220) <= 2
    blocks = list(stream(path, block_seconds=0.11))
    assert max(block.shape[1] for block in blocks) == round(0.11 * rate)
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1), read.samples)
    info = probe(path)
    assert (info.sample_rate, info.channels) == (rate, channels)
    np.testing.assert_allclose(
        Audio.load(path, sample_rate=16_000, channels=1).samples,
        read.mix(1).resample(16_000).samples,
        atol=1e-6,
    )


def test_a_voice_memo_is_read():
    memo = Audio.load(FIXTURES / "voice_memo.m4a")
    assert (memo.sample_rate, memo.samples.shape) == (44_100, (2, 22_050))
    assert memo.peak > 0.1


@pytest.mark.parametrize(("name", "codec"), [("a.m4a", "aac"), ("a.mka", "flac"), ("a.ac3", "ac3")])
def test_surround_comes_in_the_usual_order(tmp_path, name, codec):
    time_ = np.arange(48_000) / 48_000
    rows = [0.1 * np.sin(2 * np.pi * 100 * (1 + index) * time_) for index in range(6)]
    rows[3] = 0.1 * np.sin(2 * np.pi * 50 * time_)
    path = write_foreign(tmp_path / name, Audio(np.stack(rows), 48_000), codec, bit_rate=448_000)
    read = Audio.load(path)
    spectra = np.abs(np.fft.rfft(read.samples[:, 4000:28_000], axis=1))
    assert [2 * int(row.argmax()) for row in spectra] == [100, 200, 300, 50, 500, 600]
    left = np.abs(np.fft.rfft(read.mix(2).samples[0, 4000:28_000]))
    assert left[50] == pytest.approx(left[150] / np.sqrt(0.5), rel=0.05)
    assert left[50] == pytest.approx(left[250] / np.sqrt(0.5), rel=0.05)
    assert left[25] < left[50] / 50


def test_the_comment_of_an_m4a_is_read(tmp_path):
    path = write_foreign(tmp_path / "a.m4a", tone(0.3), "aac", comment="said by hand")
    assert probe(path).comment == "said by hand"


@pytest.mark.parametrize("name", ["aac.m4a", "wmav2.wma", "opus.webm", "aac.aac", "wavpack.wv"])
def test_without_the_extra_both_ways_out_are_said(tmp_path, name, monkeypatch):
    path = write_foreign(tmp_path / name, tone(0.3), *KINDS[name][:1], form=KINDS[name][1])
    there = importlib.util.find_spec
    monkeypatch.setattr(
        "audiogen_core.ffmpeg_reader.find_spec", lambda what: None if what == "av" else there(what)
    )
    with pytest.raises(UnknownFormat) as caught:
        Audio.load(path)
    assert 'pip install "audiogen-core[ffmpeg]"' in str(caught.value)
    assert "ffmpeg -i" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("fraction", [0.02, 0.3, 0.7, 0.95])
@pytest.mark.parametrize(
    "name",
    [
        "aac.m4a",
        "alac.m4a",
        "opus.mka",
        "wmav2.wma",
        "wavpack.wv",
        "tta.tta",
        "pcm.caf",
        "alac.caf",
        "pcm.au",
    ],
)
def test_what_was_cut_off_is_refused(tmp_path, name, fraction):
    path = write_foreign(tmp_path / name, tone(8.0), KINDS[name][0])
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * fraction)])
    with pytest.raises(AudioError) as caught:
        Audio.load(path)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_a_caf_file_that_was_never_finished_is_read_to_its_end(tmp_path):
    clip = tone(1.0)
    data = bytearray(write_foreign(tmp_path / "a.caf", clip, "pcm_s16be").read_bytes())
    start = data.index(b"data") + 4
    data[start : start + 8] = struct.pack(">q", -1)
    (tmp_path / "a.caf").write_bytes(data)
    read = Audio.load(tmp_path / "a.caf")
    np.testing.assert_allclose(read.samples, clip.samples, atol=2**-14)


@pytest.mark.parametrize("length", [2**63 - 1, 2**63 - 12, 2**62, 2**40, -2, -(2**63)])
@pytest.mark.parametrize("chunk", [b"free", b"desc", b"data"])
def test_a_length_of_64_bits_leads_nowhere(tmp_path, chunk, length):
    path = tmp_path / "a.caf"
    path.write_bytes(b"caff\0\1\0\0" + struct.pack(">4sq", chunk, length) + bytes(50))
    with pytest.raises(AudioError, match=r"a\.caf: "):
        probe(path)


def test_bounds_hold_for_ffmpeg_too(tmp_path):
    path = write_foreign(tmp_path / "a.m4a", tone(3.0), "aac")
    with pytest.raises(AudioError, match="are allowed"):
        Audio.load(path, max_seconds=2)
    adts = write_foreign(tmp_path / "a.aac", tone(3.0), "aac", form="adts")
    with pytest.raises(AudioError, match="are allowed"):
        Audio.load(adts, max_seconds=2)
    with pytest.raises(AudioError, match="holds no sound"):
        Audio.load(_without_sound(tmp_path / "b.mp4"))


def _without_sound(path: Path) -> Path:
    import av

    with av.open(str(path), "w") as container:
        pictures = container.add_stream("mpeg4", rate=10)
        pictures.width = pictures.height = 32
        for _ in range(5):
            container.mux(pictures.encode(av.VideoFrame(32, 32, "yuv420p")))
        container.mux(pictures.encode(None))
    return path


def _boxes(data: bytearray, wanted: bytes) -> int:
    at = data.find(wanted)
    assert at > 0
    return at + 4


def test_a_table_that_states_more_samples_than_bytes_takes_no_memory(tmp_path):
    """A table of sizes with one size for all samples states any number of them in 20 bytes."""
    data = bytearray(write_foreign(tmp_path / "a.m4a", tone(0.5), "aac").read_bytes())
    at = _boxes(data, b"stsz") + 4
    data[at : at + 8] = struct.pack(">II", 1, 170_000_000)
    stsc = _boxes(data, b"stsc") + 8
    data[stsc + 4 : stsc + 8] = struct.pack(">I", 170_000_000)
    path = tmp_path / "b.m4a"
    path.write_bytes(data)
    started = time.monotonic()
    with pytest.raises(AudioError):
        Audio.load(path)
    assert time.monotonic() - started < 40


@pytest.mark.skipif(sys.platform == "win32", reason="Windows bounds no process")
def test_a_process_that_wants_too_much_is_ended(tmp_path, monkeypatch):
    path = write_foreign(tmp_path / "a.m4a", tone(0.5), "aac")
    for body in ("import os; os.abort()", "x = b'\\1' * (1 << 40)", "print('no line', end='')"):
        child = tmp_path / "ffmpeg_child.py"
        child.write_text(body)
        monkeypatch.setattr("audiogen_core.ffmpeg_reader.__file__", str(tmp_path / "ffmpeg_reader.py"))
        with pytest.raises(AudioError, match=r"a\.m4a: .*bounds of memory and time"):
            Audio.load(path)


def test_nothing_beside_the_file_is_opened(tmp_path):
    """Neither the network nor other files: a file that refers to them has no sound of its own."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/secret"
        write_foreign(tmp_path / "other.mov", tone(0.5), "pcm_s16le")
        data = bytearray(write_foreign(tmp_path / "a.mov", tone(0.5), "pcm_s16le").read_bytes())
        at = data.find(b"url \0\0\0\1")
        assert at > 0
        data[at : at + 8] = b"url \0\0\0\0"  # not in this file
        (tmp_path / "b.mov").write_bytes(data)
        texts = {
            "list.m3u8": f"#EXTM3U\n#EXTINF:10,\n{url}\n#EXT-X-ENDLIST\n",
            "list.ffconcat": f"ffconcat version 1.0\nfile {tmp_path / 'other.mov'}\n",
            "session.sdp": f"v=0\nc=IN IP4 127.0.0.1\nm=audio {server.server_port} RTP/AVP 0\n",
        }
        for name, text in texts.items():
            (tmp_path / name).write_text(text)
        for name in texts:
            with pytest.raises(AudioError, match="not an audio file of a known format"):
                Audio.load(tmp_path / name)
    finally:
        server.shutdown()
        server.server_close()
    assert asked == []


def test_a_reader_that_is_left_early_leaves_no_process(tmp_path):
    path = write_foreign(tmp_path / "a.m4a", tone(30.0), "aac")
    before = threading.active_count()
    blocks = stream(path, block_seconds=0.1)
    next(blocks)
    started = time.monotonic()
    blocks.close()
    assert time.monotonic() - started < 5
    assert threading.active_count() == before

"""The model that comes with the package: found by name, offline, and better than chance at what it does."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest

from audiogen_core import codecs
from audiogen_core.audio import Audio
from audiogen_core.compose import compose
from audiogen_onnx import Vampnet
from audiogen_onnx.catalog import CATALOG
from audiogen_onnx.cli import cli
from audiogen_onnx.manifest import Manifest
from audiogen_onnx.vampnet.network import Network
from audiogen_onnx.vampnet.verify import verify
from support.commands import call

PIECES = range(2_000_700_000, 2_000_700_004)
"""Seeds of pieces that were never trained on, of several styles."""

SECONDS = 4.0


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("AUDIOGEN_ONNX_CACHE", str(tmp_path / "cache"))


@cache
def demo() -> Vampnet:
    return Vampnet.load("demo", threads=1)


@cache
def held() -> np.ndarray:
    """Codes (pieces, 8, frames)."""
    codec = codecs.load_codec("demo")
    return np.stack([codec.encode(compose(seed, seconds=SECONDS).audio).values for seed in PIECES])


def nats(network: Network, share: float) -> float:
    """Of the codes that are masked, when this share is."""
    rows, given = network.codebooks, network.conditioning_codebooks
    codes = held()[:, :rows].astype(np.int64)
    masked = np.random.default_rng(0).random(codes.shape) < share
    masked[:, :given] = False
    logits = network.logits(np.where(masked, network.codebook_size, codes)).astype(np.float64)
    logits -= logits.max(-1, keepdims=True)
    chances = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    truth = np.take_along_axis(chances, codes[:, given:, :, None], -1)[..., 0]
    return float(-truth[masked[:, given:]].mean())


def test_it_is_small_and_whole():
    manifest = Manifest.load(CATALOG["demo"].path, verify=True)
    assert CATALOG["demo"].size < 12e6
    assert (manifest.dtype, manifest.codec.name, manifest.has_codec) == ("int8", "demo", False)
    assert [row.graph for row in verify("demo")] == ["coarse", "fine", "coarse_step", "fine_step"]
    assert (CATALOG["demo"].path / "MODEL_CARD.md").read_text().startswith("# ")


def test_its_networks_know_more_than_how_often_a_code_is_met():
    """Unigram: 6.3 and 5.9 nats on held-out pieces."""
    assert nats(demo().coarse, 0.3) < 5.0
    assert nats(demo().fine, 0.5) < 5.7
    assert nats(demo().coarse, 0.3) < nats(demo().coarse, 0.9)


def test_a_vamp_stays_near_the_piece_and_is_not_the_piece():
    """Nearer to it than another piece is, by what sounds in it over time."""
    clips = [compose(seed, seconds=SECONDS).audio for seed in PIECES]
    made = [demo().vamp(clip, seed=1) for clip in clips]
    near = np.array([[distance(one, other) for other in clips] for one in made])
    assert (near.argmin(axis=1) == np.arange(len(clips))).all()
    for clip, result in zip(clips, made, strict=True):
        assert result.samples.shape == clip.samples.shape
        assert distance(result, clip) > 0.02


def distance(one: Audio, other: Audio) -> float:
    """Of logarithmic spectra in frames of 40 ms, per value."""
    spectra = []
    for clip in (one, other):
        frames = clip.samples[0, : len(clip.samples[0]) // 960 * 960].reshape(-1, 960) * np.hanning(960)
        spectra.append(np.log10(np.abs(np.fft.rfft(frames, axis=1)[:, :200]) + 1e-1))
    return float(np.abs(spectra[0] - spectra[1]).mean())


def test_an_infill_keeps_the_rest_to_the_sample():
    clip = compose(PIECES[0], seconds=SECONDS).audio
    made = demo().vamp(clip, infill=(1.5, 2.5), seed=2)
    assert np.array_equal(made.samples[:, :33_000], clip.samples[:, :33_000])
    assert np.array_equal(made.samples[:, 63_000:], clip.samples[:, 63_000:])
    inside = slice(38_000, 58_000)
    assert not np.allclose(made.samples[:, inside], clip.samples[:, inside], atol=1e-2)
    assert made.samples[:, inside].std() > 0.2 * clip.samples[:, inside].std()


def test_the_command_makes_variations_a_loop_and_a_replay(tmp_path):
    compose(PIECES[1], seconds=2.0).audio.save(tmp_path / "in.wav")
    done = call(cli, "vamp", "in.wav", "-m", "demo", "-o", "take.wav", "--variations", 2, "--seed", 7)
    assert done.exit_code == 0, done.output
    takes = [(tmp_path / f"take-{number}.wav").read_bytes() for number in (1, 2)]
    assert takes[0] != takes[1]
    call(cli, "replay", "take-2.wav", "-o", "again.wav")
    assert (tmp_path / "again.wav").read_bytes() == takes[1]
    done = call(cli, "vamp", "in.wav", "-m", "demo", "-o", "loop.wav", "--loop", "--period", 13, "--seed", 1)
    assert done.exit_code == 0, done.output
    assert Audio.load(tmp_path / "loop.wav").samples.shape == (1, 48_000)


def test_its_defaults_are_used_where_nothing_else_is_asked_for(tmp_path):
    compose(PIECES[1], seconds=1.0).audio.save(tmp_path / "in.wav")
    plans = [
        json.loads(
            call(cli, "vamp", "in.wav", "-m", "demo", "-o", "x.wav", "--json", "--dry-run", *more).stdout
        )
        for more in ((), ("--temperature", 0.5))
    ]
    assert plans[0]["options"] == dict(demo().defaults) and plans[0]["model"] == "demo"
    assert plans[1]["options"] == {**demo().defaults, "temperature": 0.5}


def test_the_whole_wheel_of_the_package_stays_small():
    folder = CATALOG["demo"].path.parents[1]
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.suffix != ".pyc") < 17e6  # two demos

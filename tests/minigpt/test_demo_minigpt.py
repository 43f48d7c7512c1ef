"""The model that comes with the package: there, small, offline, and musical by figures that can fail."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from audiogen_core import Audio, codecs
from audiogen_core.codes import Codes
from audiogen_core.compose import TEMPI, compose
from audiogen_core.recipe import Recipe
from audiogen_minigpt.catalog import CATALOG
from audiogen_minigpt.generate import Generator
from audiogen_minigpt.info import info

HELD_OUT = 2_000_600_000
HOP = 320  # samples in a frame of the codec


@pytest.fixture(scope="module")
def demo() -> Generator:
    return Generator.load("demo", device="cpu")


@pytest.fixture(scope="module")
def clips(demo: Generator) -> list[Audio]:
    return [demo.generate(6.0, sampling=replace(demo.sampling, seed=seed)) for seed in range(3)]


def rises(audio: Audio) -> np.ndarray:
    """How much louder the bands of each frame are than those of the frame before: (frames,)."""
    samples = np.pad(audio.samples[0], (0, 512))
    frames = (len(samples) - 512) // HOP
    parts = samples[np.arange(frames)[:, None] * HOP + np.arange(512)] * np.hanning(512)
    levels = np.log(np.abs(np.fft.rfft(parts)) + 0.05)
    return np.maximum(np.diff(levels, axis=0, prepend=levels[:1]), 0).sum(axis=1)


def beat(rise: np.ndarray, sixteenth: int, phase: int) -> float:
    """Rises on the grid of a tempo, beside rises anywhere: 1 is no rhythm at all."""
    near = np.maximum(rise, np.roll(rise, 1))  # a frame early or late
    return float(near[phase::sixteenth].mean() / near.mean())


def best_beat(audio: Audio) -> float:
    rise = rises(audio)
    return max(beat(rise, step, phase) for step in TEMPI.values() for phase in range(step))


def unigram(demo: Generator, seconds: float) -> Audio:
    """Noise of the codes of a piece, each drawn by itself."""
    info = demo.codec.info
    codes = demo.codec.encode(compose(HELD_OUT, seconds=10.0).audio, 4).values
    draws = np.random.default_rng(0)
    values = np.stack([draws.choice(row, round(seconds * info.frame_rate)) for row in codes])
    return demo.codec.decode(Codes(values, info.codebook_size, info.frame_rate, info.name))


def test_it_is_small_and_carries_its_card():
    folder = CATALOG["demo"].path
    files = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert sum(files.values()) < 12e6
    assert set(files) == {"manifest.json", "model.safetensors", "state.json", "MODEL_CARD.md"}
    card = (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    for word in ("toy", "Apache-2.0", "in some key", "held-out"):
        assert word in card


def test_info_knows_it():
    facts = info("demo")
    assert facts["kind"] == "checkpoint"
    assert facts["data"]["codec"] == "demo"
    assert 4e6 < facts["parameters"] < 6e6


def test_it_predicts_held_out_music(demo):
    """Nats per code; counting codes gives 6 or more."""
    codec, layout = codecs.load_codec("demo", ops="torch"), demo.model.layout
    losses = []
    for index in range(4):
        codes = codec.encode(compose(HELD_OUT + index, seconds=4.0).audio, 4).values
        opening = torch.full((1, 1, 4), layout.codebook_size)
        frames = torch.cat([opening, torch.from_numpy(codes.T[None].astype(np.int64))], dim=1)
        with torch.inference_mode():
            losses.append(demo.model.loss(*layout.apply(frames))[1])
    first, *others = torch.stack(losses).mean(dim=0).tolist()
    assert first < 1.2
    assert max(others) < 3.0


def test_free_clips_have_a_rhythm(demo, clips):
    floor = best_beat(unigram(demo, 6.0))
    assert np.mean([best_beat(clip) for clip in clips]) > 1.25 * floor


def test_a_continuation_begins_with_the_prompt(demo):
    piece = compose(HELD_OUT, seconds=4.0).audio
    made = demo.generate_codes(3.0, prompt_audio=piece, sampling=replace(demo.sampling, seed=1))
    assert made.values.shape == (4, 525)
    np.testing.assert_array_equal(made.values[:, :300], demo.codec.encode(piece, 4).values)
    new = demo.codec.decode(made).slice(4.0)
    assert new.rms > 0.02


def test_the_same_seed_makes_the_same_clip(demo, clips):
    again = demo.generate(6.0, sampling=replace(demo.sampling, seed=0))
    np.testing.assert_array_equal(again.samples, clips[0].samples)
    assert not np.array_equal(clips[0].samples, clips[1].samples)


def test_it_streams_past_its_context(demo):
    """8 s, when the model sees 5: the parts joined are the whole."""
    assert demo.config.context / 75 < 6
    sampling = replace(demo.sampling, seed=5)
    parts = list(demo.stream(8.0, sampling=sampling, chunk_seconds=2.0))
    joined = np.concatenate([part.samples for part in parts], axis=1)
    assert len(parts) > 2
    assert joined.shape == (1, 8 * 24_000)
    last = Audio(joined[:, -4 * 24_000 :], 24_000)
    assert last.rms > 0.01
    whole = demo.generate(8.0, sampling=sampling)
    np.testing.assert_allclose(joined, whole.samples, atol=1e-3)


def test_the_command_makes_it_offline_and_again(tmp_path: Path):
    environment = {
        "HF_HUB_OFFLINE": "1",
        "PYTHONIOENCODING": "utf-8",
        "PATH": "/nowhere",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "audiogen_minigpt"]
    line = [*command, "generate", "demo", "-o", "a.wav", "--seconds", "2", "--seed", "3"]
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, check=True)
    assert done.stdout == b"a.wav\n"
    assert "RMS" in done.stderr.decode()  # the picture
    recipe = Recipe.read(tmp_path / "a.wav")
    assert (recipe.model, recipe.seed) == ("demo", 3)
    assert recipe.revision == json.loads((CATALOG["demo"].path / "state.json").read_text())["revision"]
    line = [*command, "replay", "a.wav", "-o", "b.wav", "-q"]
    subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, check=True)
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()

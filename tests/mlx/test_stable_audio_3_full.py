"""Stable Audio 3 at the sizes that are published: names and shapes of every tensor, and whole runs."""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path

import pytest

from audiogen_core.codecs import same
from audiogen_mlx.nn import stored_shapes
from audiogen_mlx.stable_audio_3 import weights
from audiogen_mlx.stable_audio_3.conditioning import Embedders
from audiogen_mlx.stable_audio_3.config import Config, read_config
from audiogen_mlx.stable_audio_3.model import DiT
from audiogen_mlx.t5gemma import T5GemmaConfig, T5GemmaEncoder
from support import stable_audio_3_full as full
from support import stable_audio_3_jobs as jobs
from support.figures import tell


def described(size: str, folder: Path) -> Config:
    (folder / "model_config.json").write_text(json.dumps(full.configuration(size)))
    return read_config(folder / "model_config.json")


def tables(size: str, monkeypatch: pytest.MonkeyPatch) -> weights.Tables:
    stored = full.random_weights(full.KEYS[f"stable-audio-3-{size}"])
    monkeypatch.setattr(weights, "read_networks", lambda path, networks: stored.networks(networks))
    return weights.read_stable_audio_3(Path("published"))


@pytest.mark.parametrize(("size", "count"), [("small", 685), ("medium", 997)])
def test_every_tensor_of_the_published_checkpoints_is_used(size, count, tmp_path, monkeypatch):
    assert len(full.KEYS[f"stable-audio-3-{size}"]) == count
    config, found = described(size, tmp_path), tables(size, monkeypatch)
    wanted = stored_shapes(DiT(config.dit))
    shapes = {name: found.dit.shape(name) for name in found.dit}
    for name in weights.SQUEEZED:
        assert shapes[name] == (*wanted[name], 1)
        shapes[name] = wanted[name]
    assert shapes == wanted
    Embedders(config, found.embedders)
    kind = {"small": "SAME-S", "medium": "SAME-L"}[size]
    alone = same.stable_audio_tools_weights(full.random_weights(full.KEYS[kind]))
    assert {name: found.vae.shape(name) for name in found.vae} == {name: alone.shape(name) for name in alone}
    assert config.aligned == config.codec.together * (1 if size == "small" else 2) == 2
    assert round(config.window_seconds) == (120 if size == "small" else 380)


def test_every_tensor_of_the_published_text_encoder_is_used():
    config = T5GemmaConfig.from_dict(full.text_configuration())
    wanted = stored_shapes(T5GemmaEncoder(config))
    published = {name: tuple(shape) for name, shape in full.KEYS[full.TEXT].items()}
    assert {f"model.encoder.{name}": shape for name, shape in wanted.items()} == published


# The figures of docs/explanation/stable-audio-3.md

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "stable-audio-3.md"
ONCE = re.compile(r"to_(cond|global|timestep)_embed|\.to_kv\.|to_local_embed|inv_freq")
"""Tensors that a run reads once, and not in every pass."""


def below(size: str, prefix: str) -> dict[str, list[int]]:
    named = full.KEYS[f"stable-audio-3-{size}"].items()
    return {name.removeprefix(prefix): shape for name, shape in named if name.startswith(prefix)}


def numbers(tensors: dict[str, list[int]]) -> int:
    return sum(math.prod(shape) for shape in tensors.values())


def a_pass(size: str, seconds: int) -> float:
    """Operations: twice the matrices at each position, and attention, to tokens too: some twenty."""
    facts = full.SIZES[size]
    width, depth, most = facts["dit"]["embed_dim"], facts["dit"]["depth"], facts["sample_size"] // 4096
    read = {name: shape for name, shape in below(size, "model.model.").items() if not ONCE.search(name)}
    steering = {name: shape for name, shape in read.items() if "global_cond_embedder" in name}
    matrices = {name: shape for name, shape in read.items() if len(shape) > 1 and name not in steering}
    matrices.pop("transformer.memory_tokens")
    positions = min(-(-seconds * 44_100 // 4096) + 64, most) + 64
    attentions = 4 * positions * (positions + 20) * width * depth * (2 if size == "medium" else 1)
    return 2 * numbers(matrices) * positions + 2 * numbers(steering) + attentions


def decoding(size: str) -> float:
    """Operations for a second of sound."""
    side = below(size, "pretransform.model.decoder.layers.3.")
    blocks = {name: shape for name, shape in side.items() if "transformers" in name and len(shape) == 2}
    width, heard = side["new_tokens"][2], 34 if size == "small" else 3 * 17
    depth = full.SIZES[size]["same"]["transformer_depths"][0]
    latent = 2 * 17 * numbers(blocks) + 2 * 16 * math.prod(side["mapping.weight_v"])
    return (latent + 17 * 4 * heard * width * 2 * depth) * 44_100 / 4096


@pytest.mark.parametrize(
    ("size", "seconds"), [("small", 10), ("small", 120), ("medium", 10), ("medium", 120), ("medium", 380)]
)
def test_the_arithmetic_of_the_page_is_that_of_the_published_shapes(size, seconds):
    read = {name: shape for name, shape in below(size, "model.model.").items() if not ONCE.search(name)}
    one, whole = a_pass(size, seconds), 8 * a_pass(size, seconds) + decoding(size) * seconds
    cells = f"{one / 1e12:.2f} TFLOP | {2 * numbers(read) / 1e9:.2f} GB | {whole / 1e12:.1f} TFLOP"
    assert f"| {size}, {seconds} s | {cells} |" in PAGE.read_text()


def test_the_chips_of_the_page_are_divided_rightly():
    page = " ".join(PAGE.read_text().split())
    assert f"with {decoding('small') / 1e9:.0f} GFLOP, SAME-L with {decoding('medium') / 1e9:.0f}" in page
    chips = re.findall(
        r"\| M\d(?: Max)? \| (\d+) GB/s \| ([\d.]+) TFLOP/s \| "
        r"(\d+) ms, (\d+) ms(?: a pass)? \| (\d+) ms, ([\d.]+) s \|",
        page,
    )
    assert len(chips) == 6
    bytes_read = [
        2 * numbers({n: s for n, s in below(size, "model.model.").items() if not ONCE.search(n)})
        for size in ("small", "medium")
    ]
    for memory, speed, reading, computing, reading_medium, computing_medium in chips:
        assert round(bytes_read[0] / float(memory) / 1e6) == int(reading)
        assert round(bytes_read[1] / float(memory) / 1e6) == int(reading_medium)
        assert abs(a_pass("small", 10) / float(speed) / 1e9 - int(computing)) < 0.6
        assert abs(a_pass("medium", 120) / float(speed) / 1e12 / float(computing_medium) - 1) < 0.04


def of_minutes(test):
    """A test that runs such a job, whose memory's peak is read from /proc."""
    marks = pytest.mark.slow, pytest.mark.timeout(1800)
    skipped = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads from /proc")
    for mark in (*marks, skipped):
        test = mark(test)
    return test


@of_minutes
def test_ten_seconds_of_small_at_full_size(tmp_path):
    found = jobs.run("small", tmp_path)
    assert found["shape"] == [2, 441_000] and found["finite"]
    assert found["peak"] < 2.5
    what = "seconds that Stable Audio 3 small makes at full size, parts given back"
    tell("memory", what, 10, f"{found['peak']:.2f} GiB at most", promised="2.5 GiB")


@of_minutes
def test_one_pass_and_one_window_of_medium_at_full_size(tmp_path):
    found = jobs.run("medium", tmp_path)
    assert found["velocity"] == [1, 256, 172] and found["sound"] == [2, 32 * 4096]
    assert found["finite"] and found["spread"] > 0.1
    assert found["peak"] < 7
    what = "frames of Stable Audio 3 medium at full size: one pass, and 32 decoded"
    tell("memory", what, 172, f"{found['peak']:.2f} GiB at most", promised="7 GiB")


@of_minutes
def test_two_minutes_are_decoded_in_pieces_as_they_are_whole(tmp_path):
    found = jobs.run("two_minutes", tmp_path)
    assert found["samples"] == found["compared"] == 1292 * 4096
    assert found["loudest"] > 0.1 and found["difference"] < 1e-4
    assert found["two_minutes"] < 1.25 * found["twelve"] < found["whole"] / 4
    tell(
        "memory",
        "seconds that SAME-S decodes at full size, mlx",
        round(found["samples"] / 44_100),
        f"{found['two_minutes']:.2f} GiB above the weights, whole {found['whole']:.2f} GiB; "
        f"within {found['difference']:.0e} of it",
        promised="flat; within 1e-4",
    )

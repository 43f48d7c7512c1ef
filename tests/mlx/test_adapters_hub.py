"""Adapters by a hub id: allowed or not, told before, fetched once, kept in recipes; from a stand-in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from audiogen_core import hub_client, lora
from audiogen_core.audio import Audio
from audiogen_core.errors import DownloadError, WeightsError
from audiogen_core.hub import asking, here
from audiogen_core.recipe import Recipe
from audiogen_mlx.cli import cli
from audiogen_mlx.stable_audio import StableAudio
from audiogen_mlx.stable_audio_3 import StableAudio3
from support.commands import call
from support.loopback_hub import LoopbackHub, point_at

FIXTURES = Path(__file__).parents[1] / "fixtures"
MODELS = FIXTURES / "musicgen"
QV = FIXTURES / "lora" / "mono" / "qv"
SA3 = FIXTURES / "stable-audio-3"
OPEN = FIXTURES / "stable-audio"
WANTED = "somebody/banjo:0.5"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    (tmp_path / "open").mkdir()
    shape = load_file(OPEN / "tiny-1.0" / "model.safetensors")[f"{LOOKED_AT}.weight"].shape
    rng, stem = np.random.default_rng(0), LOOKED_AT.replace(".", "/")
    halves = {"lora_down": (4, shape[1]), "lora_up": (shape[0], 4)}
    tensors = {
        f"{stem}/{half}.weight": rng.normal(0, 0.3, of).astype(np.float32) for half, of in halves.items()
    }
    save_file(tensors, tmp_path / "open" / "rain.safetensors")
    repositories = {
        "somebody/banjo": {path.name: path.read_bytes() for path in QV.iterdir()},
        "somebody/bell": {"bell.safetensors": (SA3 / "loras" / "lora.safetensors").read_bytes()},
        "somebody/rain": {"rain.safetensors": (tmp_path / "open" / "rain.safetensors").read_bytes()},
        "somebody/words": {"README.md": b"nothing else"},
    }
    with LoopbackHub(repositories) as found:
        point_at(found.endpoint, tmp_path / "cache", monkeypatch)
        monkeypatch.setattr(hub_client, "RETRY_DELAYS", (0.0, 0.0))
        yield found


LOOKED_AT = "model.model.transformer.layers.0.self_attn.to_qkv"


def run(output: Path, *more: object):
    parts = (
        "-m",
        MODELS / "musicgen-mono",
        "--tokenizer",
        MODELS / "tokenizer",
        "--seconds",
        0.3,
        "--seed",
        1,
    )
    return call(cli, "musicgen", "slow piano", *parts, "-o", output, *more)


def test_one_is_fetched_when_it_is_allowed_and_then_needs_no_network(
    server: LoopbackHub, tmp_path: Path
) -> None:
    refused = run(tmp_path / "a.wav", "--lora", WANTED)
    assert refused.exit_code == 1 and "no such file or folder" in refused.stderr
    assert "--unlisted" in refused.stderr and server.log == []
    first = run(tmp_path / "a.wav", "--lora", WANTED, "--unlisted")
    assert first.exit_code == 0, first.output
    notice = next(line for line in first.stderr.splitlines() if line.startswith("Downloading"))
    assert "somebody/banjo" in notice and str(tmp_path / "cache") in notice
    before = len(server.log)
    again = run(tmp_path / "b.wav", "--lora", WANTED, "--unlisted", "--offline")
    assert again.exit_code == 0 and len(server.log) == before
    local = run(tmp_path / "c.wav", "--lora", f"{QV}:0.5")
    assert local.exit_code == 0
    sounds = [Audio.load(tmp_path / f"{name}.wav").samples for name in "abc"]
    np.testing.assert_array_equal(sounds[0], sounds[1])
    np.testing.assert_array_equal(sounds[0], sounds[2])


def test_offline_one_that_is_not_here_is_told(server: LoopbackHub, tmp_path: Path) -> None:
    result = run(tmp_path / "a.wav", "--lora", WANTED, "--unlisted", "--offline")
    assert result.exit_code == 1 and "somebody/banjo: never fetched" in result.stderr
    assert server.log == []


def test_a_dry_run_says_what_would_be_fetched(server: LoopbackHub, tmp_path: Path) -> None:
    result = run(tmp_path / "a.wav", "--lora", WANTED, "--unlisted", "--dry-run", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["download_bytes"] == sum(
        map(len, server.repos["somebody/banjo"].values())
    )
    assert server.gets("adapter_model.safetensors") == []


def test_a_recipe_keeps_it_and_replay_finds_it(server: LoopbackHub, tmp_path: Path) -> None:
    assert run(tmp_path / "a.wav", "--lora", WANTED, "--unlisted").exit_code == 0
    recipe = Recipe.read(tmp_path / "a.wav")
    assert recipe.settings["lora"] == [WANTED] and recipe.inputs["lora"] == lora.hashed(str(QV))
    again = call(cli, "replay", tmp_path / "a.wav", "-o", tmp_path / "b.wav", "--offline", "--unlisted")
    assert again.exit_code == 0, again.output
    assert (tmp_path / "b.wav").read_bytes() == (tmp_path / "a.wav").read_bytes()


def test_the_other_models_take_one_too(server: LoopbackHub) -> None:
    """A repository with one file of weights: an adapter of LoRAW, and one of Stable Audio 3."""
    fetch = asking(unlisted=True, notify=lambda line: None)
    asked = {"prompt": "a bell", "seconds": 0.2, "steps": 2, "seed": 1}
    for cls, model, name, parts in (
        (StableAudio3, SA3 / "tiny-small", "somebody/bell", {}),
        (StableAudio, OPEN / "tiny-1.0", "somebody/rain", {"t5": OPEN / "t5"}),
    ):
        found = cls.load(model, lora=[name], fetch=fetch, **parts).generate(**asked)
        assert np.abs(found.samples - cls.load(model, **parts).generate(**asked).samples).max() > 1e-4
        (place,) = lora.local([name], here)
        local = cls.load(model, lora=[place], **parts).generate(**asked)
        np.testing.assert_array_equal(found.samples, local.samples)


def test_a_repository_without_one_is_told(server: LoopbackHub) -> None:
    with pytest.raises(DownloadError, match="no weights in this repository"):
        lora.local(["somebody/words"], asking(unlisted=True, notify=lambda line: None))
    with pytest.raises(WeightsError, match=r"no such file or folder; and by its name on the hub.*--unlisted"):
        lora.local(["somebody/words"], asking())
    assert lora.local(["gone", "a/b/c:2"], asking()) == ("gone", "a/b/c:2")

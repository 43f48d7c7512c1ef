"""The published models at full size with random weights: one pass of each network, one decoded window."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from audiogen_core.codecs import oobleck
from audiogen_mlx.ops import MlxOps
from audiogen_mlx.stable_audio.conditioning import Conditioning, load_numbers
from audiogen_mlx.stable_audio.guidance import Guidance, predictor
from audiogen_mlx.stable_audio.read_config import read_stable_audio_tools
from audiogen_mlx.stable_audio.weights import EMBEDDERS, STABLE_AUDIO_TOOLS, load_dit
from support import stable_audio_full as full

pytestmark = pytest.mark.slow


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["small", "1.0"])
def test_one_pass(tmp_path: Path, name: str) -> None:
    path = tmp_path / "model_config.json"
    path.write_text(json.dumps(full.configuration(name)))
    config = read_stable_audio_tools(path)
    shapes = full.transformer(full.SMALL if name == "small" else full.ONE)
    network = load_dit(config.dit, full.random_weights(shapes).apply(STABLE_AUDIO_TOOLS))
    table = full.random_weights(full.conditioners([one.id for one in config.numbers])).apply(EMBEDDERS)
    embedders = load_numbers(config, table)
    table.finish()
    numbers = [embedder([10.0]) for embedder in embedders.values()]
    length = config.text.max_length + len(numbers)
    mask = np.zeros((1, length), dtype=bool)
    mask[:, [*range(9), *range(config.text.max_length, length)]] = True
    text = mx.random.normal((1, config.text.max_length, 768)) * mx.array(
        mask[:, : config.text.max_length, None]
    )
    given = Conditioning(
        mx.concatenate([text, *(number[:, None] for number in numbers)], axis=1),
        mask,
        mx.concatenate(numbers, axis=-1),
    )
    call = predictor(network, given, Guidance(1.0), config.frames, flow=config.flow)
    velocity = np.array(call(mx.random.normal((1, 64, config.frames)), 0.5).velocity)
    assert velocity.shape == (1, 64, config.frames)
    assert np.isfinite(velocity).all() and velocity.std() > 0.1


@pytest.mark.timeout(900)
def test_decoding_a_window_of_small_in_bounded_memory() -> None:
    config = oobleck.from_stable_audio_tools(full.configuration("small"))
    weights = full.random_weights(full.autoencoder())
    assert len(weights) == 365
    autoencoder = oobleck.build(config, oobleck.stable_audio_tools_weights(weights, config), MlxOps())
    latents = np.random.default_rng(0).standard_normal((64, 256), dtype=np.float32)
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    samples = np.concatenate(list(autoencoder.decode_blocks([latents])), axis=1)
    assert samples.shape == (2, 524288)
    assert np.isfinite(samples).all()
    peak = mx.get_peak_memory() - before
    print(f"\npeak of mlx while decoding 11.9 s, above the weights: {peak / 2**30:.2f} GiB")
    assert peak < 2**30

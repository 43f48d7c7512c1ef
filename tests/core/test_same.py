"""SAME: the border, lengths, what is refused, names of the published checkpoints, and memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from audiogen_core import Audio, Latents, codecs
from audiogen_core.codecs import same
from audiogen_core.errors import ModelError, WeightsError
from audiogen_core.formats.stored import StoredArray
from audiogen_core.weights import Weights

FIXTURES = Path(__file__).parents[1] / "fixtures" / "stable-audio-3"
SETTINGS = json.loads((FIXTURES / "tiny-small" / "model_config.json").read_text())
PARTS = "model/pretransform/config"
HOP = 128


@pytest.mark.parametrize("samples", [1, HOP, HOP + 1, 5 * HOP])
def test_latents_come_in_pairs_and_sound_has_the_length_of_the_clip(samples):
    made = codecs.load_autoencoder(FIXTURES / "tiny-small")
    clip = Audio(np.random.default_rng(0).uniform(-1, 1, (2, samples)), made.info.sample_rate)
    latents = made.encode(clip)
    frames = -(-samples // HOP)
    assert latents.values.shape == (16, frames + frames % 2)
    assert latents.length == samples
    assert made.decode(latents).samples.shape == (2, samples)
    medium = codecs.load_autoencoder(FIXTURES / "tiny-medium")
    clip = Audio(clip.samples, medium.info.sample_rate)
    assert medium.encode(clip).values.shape == (12, -(-samples // 80))


def test_latents_of_one_go_into_the_other_no_further():
    small = codecs.load_autoencoder(FIXTURES / "tiny-small")
    with pytest.raises(Exception, match="made by same-0khz@00000000"):
        small.decode(Latents(np.zeros((16, 2), np.float32), small.info.frame_rate, "same-0khz@00000000"))


def changed(path: str, value: Any) -> dict[str, Any]:
    """The settings with one of them replaced, or taken out where `value` is None."""
    tree = json.loads(json.dumps(SETTINGS))
    *parents, last = path.split("/")
    place = tree
    for parent in parents:
        place = place[parent]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return tree


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (f"{PARTS}/bottleneck/type", "vae", "'vae' is not supported"),
        (f"{PARTS}/bottleneck/config/noise_augment_dim", 4, "noise_augment_dim"),
        (f"{PARTS}/pretransform/type", "wavelet", "'wavelet' is not supported"),
        (f"{PARTS}/decoder/type", "oobleck", "'oobleck' is not supported"),
        (f"{PARTS}/decoder/config/differential", False, "differential"),
        (f"{PARTS}/decoder/config/dyt", False, "dyt"),
        (f"{PARTS}/decoder/config/conformer", True, "conformer"),
        (f"{PARTS}/decoder/config/strides", [2, 2], "several stages"),
        (f"{PARTS}/decoder/config/strides", [8], "do not make a downsampling_ratio of 128"),
        (f"{PARTS}/encoder/config/chunk_size", 7, "multiple of the stride 4"),
        (f"{PARTS}/encoder/config/chunk_size", None, "attention needs a chunk_size"),
        (f"{PARTS}/encoder/config/sliding_window", [1, 1], "attention needs a chunk_size"),
        (f"{PARTS}/encoder/config/dim_heads", 7, "heads of 7 do not fill the width 36"),
        (f"{PARTS}/encoder/config/sinusoidal_blocks", [0, 1], "sinusoidal_blocks must be one number"),
        (f"{PARTS}/encoder/config/in_channels", 63, "in_channels"),
        (f"{PARTS}/encoder/config/latent_dim", 15, "latent_dim"),
        (f"{PARTS}/encoder/config/new_setting", 1, "unknown settings: new_setting"),
        (f"{PARTS}/encoder/config/transformer_depths", [1 << 20], "too many"),
        (f"{PARTS}/downsampling_ratio", 64, "downsampling_ratio of 64"),
        (f"{PARTS}/pretransform/config/channels", 1, "channels"),
        ("sample_rate", None, "sample_rate is missing"),
    ],
)
def test_settings_of_other_models_are_refused(path, value, message):
    with pytest.raises(ModelError, match=message):
        same.from_stable_audio_tools(changed(path, value))


def test_what_is_wrong_names_the_file(tmp_path):
    (tmp_path / "model_config.json").write_text(json.dumps(changed(f"{PARTS}/latent_dim", 15)))
    (tmp_path / "model.safetensors").symlink_to(FIXTURES / "tiny-small" / "model.safetensors")
    with pytest.raises(ModelError, match=r"model_config\.json: .*dim 16 is not supported here, only 15"):
        codecs.load(tmp_path)


def test_diffusers_settings_that_cannot_be():
    config = json.loads((FIXTURES / "tiny-medium-diffusers" / "vae" / "config.json").read_text())
    for change, message in (
        ({"use_differential_attention": False}, "use_differential_attention"),
        ({"ff_mult": 4}, "ff_mult"),
        ({"encoder_strides": [2, 2]}, "several stages"),
        ({"dim_heads": 100}, "heads"),
    ):
        with pytest.raises(ModelError, match=message):
            same.from_diffusers(config | change)


def weights_of(shapes: dict[str, list[int]]) -> Weights:
    """Tensors of these names and shapes, of random numbers that are read as they are asked for."""
    rng = np.random.default_rng(0)

    def array(name: str, shape: tuple[int, ...]) -> StoredArray:
        def read() -> np.ndarray:
            if name.endswith("running_std"):
                return np.ones(shape, np.float32)
            return rng.standard_normal(shape, dtype=np.float32) * np.float32(0.02)

        return StoredArray(shape, "float32", read)

    return Weights({name: array(name, tuple(shape)) for name, shape in shapes.items()}, "published")


PUBLISHED = json.loads((FIXTURES / "published_keys.json").read_text())
KINDS = {
    "SAME-S": (
        "tiny-small",
        244,
        {"channels": 128, "chunk_size": 32, "depth": 6, "sines": 0},
    ),
    "SAME-L": ("tiny-medium", 472, {"channels": 256, "depth": 12, "sines": 8}),
}


def full_size(kind: str) -> dict[str, Any]:
    """The settings of a published SAME, in the shape of those of the tiny ones."""
    path, _, sizes = KINDS[kind]
    settings = json.loads((FIXTURES / path / "model_config.json").read_text())
    parts = settings["model"]["pretransform"]["config"]
    parts |= {"latent_dim": 256, "downsampling_ratio": 4096}
    parts["bottleneck"]["config"]["dim"] = 256
    parts["pretransform"]["config"]["patch_size"] = 256
    for side, outside in (("encoder", "in_channels"), ("decoder", "out_channels")):
        own = parts[side]["config"]
        own |= {
            "channels": sizes["channels"],
            "dim_heads": 64,
            "strides": [16],
            "latent_dim": 256,
            outside: 512,
        }
        own["transformer_depths"] = [sizes["depth"]]
        if "chunk_size" in sizes:
            own["chunk_size"] = sizes["chunk_size"]
    parts["decoder"]["config"]["sinusoidal_blocks"] = [sizes["sines"]]
    return settings | {"sample_rate": 44100}


@pytest.mark.parametrize("kind", ["SAME-S", "SAME-L"])
def test_every_tensor_of_the_published_checkpoints_is_used(kind):
    _, count, _ = KINDS[kind]
    shapes = PUBLISHED[kind]
    assert len(shapes) == count
    config = same.from_stable_audio_tools(full_size(kind))
    taken: list[str] = []

    class Asked(Weights):
        def take(self, name: str, shape: Any, dtype: Any = np.float32) -> Any:
            assert self.shape(name) == tuple(shape), name
            taken.append(name)
            self._left.pop(name)
            small = np.ones(1, np.float32)
            return np.broadcast_to(small, shape)

    class NoOps:
        """Adopts nothing, so that no gigabytes are made."""

        conv_weight = vector = staticmethod(lambda array: None)

    stored = same.stable_audio_tools_weights(weights_of(shapes))
    made = same.build(config, Asked(stored._arrays, "published"), NoOps())  # type: ignore[arg-type]
    assert len(taken) == len(set(taken)) == len(stored)
    assert made.info.hop_length == 4096
    sides = 2 * config.encoder.depth
    # Rotary tables and an empty tensor are dropped; gain and direction are one, a matrix is cut into five.
    assert len(stored) == count - sides - 1 - 2 + 4 * sides
    blocks = made._decoder_layers[3].blocks  # type: ignore[attr-defined]
    assert [block.sine for block in blocks] == [
        kind == "SAME-L" and i >= 5 for i in range(config.decoder.depth)
    ]


def test_tensors_that_are_missing_or_left_over_are_named(tmp_path):
    (tmp_path / "model_config.json").symlink_to(FIXTURES / "tiny-small" / "model_config.json")
    tensors = load_file(FIXTURES / "tiny-small" / "model.safetensors")
    at = "pretransform.model.decoder.layers.3.transformers.3.ff_norm."
    path = tmp_path / "model.safetensors"
    save_file({name: array for name, array in tensors.items() if name != f"{at}alpha"}, path)
    with pytest.raises(WeightsError, match=r"decoder\.blocks\.3\.ff_norm\.alpha' is missing"):
        codecs.load(tmp_path)
    save_file(tensors | {f"{at}delta": tensors[f"{at}alpha"]}, path)
    with pytest.raises(WeightsError, match=r"unexpected \(1\): decoder\.blocks\.3\.ff_norm\.delta"):
        codecs.load(tmp_path)
    save_file(tensors | {f"{at}gamma": tensors[f"{at}alpha"]}, path)
    with pytest.raises(WeightsError, match=r"ff_norm\.gamma' has shape \(1,\), expected \(36,\)"):
        codecs.load(tmp_path)


def test_the_runtimes_own_files_are_understood():
    """Its two files of an autoencoder hold what one checkpoint does, under other names."""
    names = json.loads((FIXTURES / "official_mlx_npz_names.json").read_text())
    for kind in ("s", "l"):
        found = {
            f"{side}.{name}": shape
            for side in ("encoder", "decoder")
            for key, table in names.items()
            if key.startswith(f"same_{kind}_{side}")
            for name, shape in table.items()
        }
        renamed = weights_of(found).apply(same.RUNTIME)
        stored = same.stable_audio_tools_weights(weights_of(PUBLISHED[f"SAME-{kind.upper()}"]))
        assert {name: renamed.shape(name) for name in renamed} == {
            name: stored.shape(name) for name in stored
        }

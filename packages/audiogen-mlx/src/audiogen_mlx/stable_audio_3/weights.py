"""The names of tensors: how each published layout becomes ours, and ours fills the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from audiogen_core.codecs import same
from audiogen_core.codecs.oobleck import IN_STABLE_AUDIO_TOOLS
from audiogen_core.errors import ModelError, OptionError, WeightsError
from audiogen_core.weights import (
    Drop,
    Network,
    Rename,
    Rules,
    StoredArray,
    Weights,
    read,
    read_networks,
)
from audiogen_mlx.nn import GROUP, QUANTIZED, load_strict, quantize
from audiogen_mlx.stable_audio import weights as open_
from audiogen_mlx.stable_audio_3.config import DitConfig
from audiogen_mlx.stable_audio_3.lora import Lora, merged
from audiogen_mlx.stable_audio_3.model import DiT

_LOCAL = Rename(r"\.to_local_embed\.", ".local_embed.")

STABLE_AUDIO_3: Rules = (_LOCAL, *open_.STABLE_AUDIO_TOOLS)
"""Names of stable-audio-3's DiffusionTransformer, after `model.model.`: Stable Audio Open's, and one more."""

_DIT = Network(r"transformer\.layers\.", usual=tuple(f"{outer}model.model." for outer in Network.usual))
_CONDITIONERS = Network(r"\w+\.", below="conditioner.conditioners.")
_NETWORKS = {"dit": _DIT, "embedders": _CONDITIONERS, "vae": IN_STABLE_AUDIO_TOOLS}
"""The parts of a model in a checkpoint of stable-audio-3."""

DIFFUSERS: Rules = (
    Rename(r"^transformer_blocks\.", "transformer.layers."),
    Rename(r"^proj_(in|out)\.", r"transformer.project_\1."),
    Rename(r"^(global_cond_embedder\.|memory_tokens$|rotary_pos_emb\.)", r"transformer.\1"),
    Rename(r"\.ff\.proj_in\.", ".ff.ff.0.proj."),
    Rename(r"\.ff\.proj_out\.", ".ff.ff.2."),
    *STABLE_AUDIO_3,
)
"""Names of diffusers' StableAudio3DiTModel."""

DIFFUSERS_EMBEDDERS: Rules = (
    Rename(r"^linear\.", "seconds_total.out."),
    Drop(r"freqs", "of the features of seconds, whose bits are known"),
)
"""Names of diffusers' StableAudio3DurationEmbedder."""

_PADDING = "prompt_padding_embedding"

RUNTIME: Rules = (Rename(r"\.to_local_embed\.seq\.", ".to_local_embed."), *STABLE_AUDIO_3)
"""Names of the network in the authors' runtime for Apple's chips."""

RUNTIME_EMBEDDERS: Rules = (
    Rename(r"^padding_embedding$", "prompt.padding_embedding"),
    Rename(r"^seconds_total_(weight|bias)$", r"seconds_total.out.\1"),
)
"""Names of the conditioners there, after `cond.`."""

OWN = "audiogen.safetensors"
"""The checkpoint that `convert` writes, with our names after those of the parts."""

SQUEEZED = ("preprocess.weight", "postprocess.weight")
"""Convolutions of one tap, which are matrices here."""


@dataclass(frozen=True)
class Tables:
    """The tensors of a checkpoint by part, in our names."""

    dit: Weights
    embedders: Weights
    vae: Weights


def read_tables(checkpoint: Path) -> Tables:
    """The tensors of a checkpoint in any layout, unread. Raises WeightsError, ModelError."""
    if checkpoint.is_dir():
        return read_diffusers(checkpoint)
    if checkpoint.suffix == ".npz":
        return read_runtime(checkpoint)
    if checkpoint.name == OWN:
        whole = read(checkpoint)
        return Tables(*(whole.below(f"{part.name}.") for part in fields(Tables)))
    return read_stable_audio_3(checkpoint)


def check_plain(bits: int | None, checkpoint: Path) -> None:
    """Raise OptionError for a checkpoint that is quantised, into which no LoRA can be merged."""
    if bits is not None:
        raise OptionError(
            f"{checkpoint}: quantised, so no LoRA can be merged into it; load the model that it was made "
            "from, with lora and bits"
        )


def with_loras(tables: Tables, loras: Sequence[Lora]) -> Tables:
    """The same with LoRAs merged into the network and the layer that makes a vector of seconds."""
    dit = merged(tables.dit, "dit", loras, STABLE_AUDIO_3)
    return Tables(dit, merged(tables.embedders, "embedders", loras, open_.EMBEDDERS), tables.vae)


def read_stable_audio_3(path: Path) -> Tables:
    """A checkpoint of stable-audio-3. Raises WeightsError when a part is missing, or a tensor of none."""
    found = read_networks(path, _NETWORKS)
    parts = {"dit": "model.model.", "embedders": _CONDITIONERS.below, "vae": "pretransform.model."}
    missing = [prefix for part, prefix in parts.items() if part not in found]
    if missing:
        raise WeightsError(
            f"{path}: {read(path).begins()}no whole Stable Audio 3: no name begins with "
            f"{' or '.join(missing)}"
        )
    return Tables(
        found["dit"].apply(STABLE_AUDIO_3),
        found["embedders"].apply(open_.EMBEDDERS),
        found["vae"].apply(same.STABLE_AUDIO_TOOLS),
    )


def read_diffusers(folder: Path) -> Tables:
    """The parts of a folder of diffusers. Raises WeightsError."""
    stored = read(folder / "transformer")
    seconds = read(folder / "duration_embedder").apply(DIFFUSERS_EMBEDDERS)
    padding = stored.stored(_PADDING)
    dit = stored.apply((Drop(_PADDING, "a conditioner's"), *DIFFUSERS))
    ordered = {name: _ordered(dit.stored(name)) for name in dit if name.endswith(".self_attn.qkv.weight")}
    return Tables(
        dit.replaced(ordered),
        seconds.replaced({"prompt.padding_embedding": padding}),
        read(folder / "vae").apply(same.DIFFUSERS),
    )


def read_runtime(path: Path) -> Tables:
    """The parts in three files of the authors' runtime: the network, named, and an autoencoder beside it.

    Raises WeightsError, or ModelError where a part is not there.
    """
    stored = read(path)
    network = stored.apply((Drop(r"cond\..*", "a conditioner's"), *RUNTIME))
    thin = {name: _thin(network.stored(name)) for name in SQUEEZED}
    sides = {side: read(file) for side, file in runtime_sides(path, stored).items()}
    codec = {f"{side}.{name}": table.stored(name) for side, table in sides.items() for name in table}
    return Tables(
        network.replaced(thin),
        stored.below("cond.").apply(RUNTIME_EMBEDDERS),
        Weights(codec, str(path.parent)).apply(same.RUNTIME),
    )


def runtime_sides(path: Path, stored: Weights) -> dict[str, Path]:
    """The files of the autoencoder that a network of the authors' runtime goes with. Raises ModelError.

    The networks themselves do not say which; those whose attention is differential go with SAME-L.
    """
    rows, width = stored.shape("transformer.layers.0.self_attn.to_qkv.weight")
    kind = {3: "s", 5: "l"}.get(rows // width)
    if kind is None:
        raise ModelError(f"{path}: neither small nor medium: its attention has {rows} rows of {width}")
    return {side: only_file(path.parent, f"same_{kind}_{side}*.npz") for side in ("encoder", "decoder")}


def only_file(folder: Path, pattern: str) -> Path:
    """The one file of that name. Raises ModelError."""
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        several = f"several ({', '.join(file.name for file in found[:5])}); name one" if found else "none"
        raise ModelError(f"{folder}: expected {pattern} of the authors' runtime, found {several}")
    return found[0]


def _thin(matrix: StoredArray) -> StoredArray:
    """A convolution of one tap, which that runtime has between its other axes, as a matrix."""
    shape = tuple(size for axis, size in enumerate(matrix.shape) if axis != 1 or size != 1)
    return StoredArray(shape, matrix.dtype, lambda: matrix.read().reshape(shape))


def stored_bits(table: Weights) -> int | None:
    """What a network is quantised to in its file, or None. Raises WeightsError."""
    name = next((name for name in table if name.endswith(QUANTIZED["scales"])), None)
    if name is None:
        return None
    words, groups = (table.shape(one)[-1] for one in (name.removesuffix(QUANTIZED["scales"]), name))
    bits = words * 32 // (groups * GROUP or 1)
    if bits not in (4, 8):
        raise WeightsError(f"{table.source}: {name} is of a network quantised to {bits} bits, not 4 or 8")
    return bits


def _ordered(matrix: StoredArray) -> StoredArray:
    """Queries, keys and values in our order, where diffusers has both queries, then both keys."""

    def load() -> NDArray[Any]:
        query, second, key, other, value = np.split(matrix.read(), 5)
        return np.concatenate([query, key, value, second, other])

    return StoredArray(matrix.shape, matrix.dtype, load)


def outline(config: DitConfig, bits: int | None) -> DiT:
    """The network without its weights, quantised or not."""
    model = DiT(config)
    if bits is not None:
        quantize(model, bits, biased=True)
    return model


def load_dit(
    config: DitConfig, weights: Weights, dtype: mx.Dtype = mx.float32, bits: int | None = None
) -> DiT:
    """The network with its parameters, all of them taken from `weights` and nothing left over.

    bits  that it is quantised to here; a network that is stored so stays as it is

    Raises WeightsError that lists what is missing, misshapen, unexpected or not finite.
    """
    stored = stored_bits(weights)
    model = outline(config, stored or bits)
    load_strict(model, weights, dtype=dtype, squeezed=SQUEEZED, stored_quantized=stored is not None)
    return model

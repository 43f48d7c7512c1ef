"""The table of names: how each published layout becomes ours, and ours becomes the network's.

Two steps. Rules rename, split and drop tensors of a layout; they are data. Then `load_dit` and
`load_embedders` take every parameter by name and shape, in the form the network wants, and whatever is
left over is an error. Tensors are read one at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np

from audiogen_core.errors import WeightsError
from audiogen_core.weights import Drop, Int8Rows, Rename, Rules, Split, Weights, read
from audiogen_mlx.stable_audio.config import DitConfig
from audiogen_mlx.stable_audio.model import TIME_FEATURES, DiT

_ROTARY = Drop(r"transformer\.rotary_pos_emb\.inv_freq", "worked out from the width of a head")

STABLE_AUDIO_TOOLS: Rules = (
    _ROTARY,
    Rename(r"^timestep_features\.weight$", "time_frequencies"),
    Rename(r"^to_timestep_embed\.", "time_embed."),
    Rename(r"^to_cond_embed\.", "cond_embed."),
    Rename(r"^to_global_embed\.", "global_embed."),
    Rename(r"^(pre|post)process_conv\.", r"\1process."),
    Rename(r"^transformer\.global_cond_embedder\.", "modulation."),
    Rename(r"^transformer\.", ""),
    Rename(r"\.pre_norm\.", ".self_norm."),
    Rename(r"\.cross_attend_norm\.", ".cross_norm."),
    Rename(r"_norm\.gamma$", "_norm.weight"),
    Rename(r"_norm\.beta$", "_norm.bias"),
    Split(r"(.*\.self_attn)\.to_qkv\.weight", (r"\1.q.weight", r"\1.k.weight", r"\1.v.weight")),
    Split(r"(.*\.cross_attn)\.to_kv\.weight", (r"\1.k.weight", r"\1.v.weight")),
    Rename(r"\.cross_attn\.to_q\.", ".cross_attn.q."),
    Rename(r"_attn\.to_out\.", "_attn.out."),
    Rename(r"\.ff\.ff\.0\.proj\.", ".ff.inner."),
    Rename(r"\.ff\.ff\.2\.", ".ff.out."),
    Rename(r"\.to_scale_shift_gate$", ".modulation"),
    Rename(r"\.(self|cross)_attn_scale\.scale$", r".\1_scale"),
    Rename(r"\.ff_scale\.scale$", ".ff_scale"),
    Rename(r"_embed\.0\.", "_embed.first."),
    Rename(r"_embed\.2\.", "_embed.second."),
    Rename(r"^modulation\.0\.", "modulation.first."),
    Rename(r"^modulation\.2\.", "modulation.second."),
)
"""Names of stable-audio-tools' DiffusionTransformer, after `model.model.`."""

DIFFUSERS: Rules = (
    Rename(r"^time_proj\.weight$", "time_frequencies"),
    Rename(r"^timestep_proj\.", "time_embed."),
    Rename(r"^cross_attention_proj\.", "cond_embed."),
    Rename(r"^global_proj\.", "global_embed."),
    Rename(r"^(pre|post)process_conv\.", r"\1process."),
    Rename(r"^proj_(in|out)\.", r"project_\1."),
    Rename(r"^transformer_blocks\.", "layers."),
    Rename(r"\.norm1\.", ".self_norm."),
    Rename(r"\.norm2\.", ".cross_norm."),
    Rename(r"\.norm3\.", ".ff_norm."),
    Rename(r"\.attn1\.", ".self_attn."),
    Rename(r"\.attn2\.", ".cross_attn."),
    Rename(r"_attn\.to_([qkv])\.", r"_attn.\1."),
    Rename(r"_attn\.to_out\.0\.", "_attn.out."),
    Rename(r"\.ff\.net\.0\.proj\.", ".ff.inner."),
    Rename(r"\.ff\.net\.2\.", ".ff.out."),
    Rename(r"_embed\.0\.", "_embed.first."),
    Rename(r"_embed\.2\.", "_embed.second."),
)
"""Names of diffusers' StableAudioDiTModel."""

EMBEDDERS: Rules = (
    Rename(r"\.embedder\.embedding\.0\.weights$", ".frequencies"),
    Rename(r"\.embedder\.embedding\.1\.", ".out."),
    Rename(r"\.int_embedder\.weight$", ".table"),
)
"""Names of stable-audio-tools' conditioners, after `conditioner.conditioners.`."""

DIFFUSERS_EMBEDDERS: Rules = (
    Rename(r"^text_projection\.", "prompt.proj_out."),
    Rename(r"^start_number_conditioner\.", "seconds_start."),
    Rename(r"^end_number_conditioner\.", "seconds_total."),
    Rename(r"\.time_positional_embedding\.0\.weights$", ".frequencies"),
    Rename(r"\.time_positional_embedding\.1\.", ".out."),
)
"""Names of diffusers' StableAudioProjectionModel."""

_TRAINING = (r"diffusion_ema\.(initted|step)", r"losses\..*")
"""Of a training checkpoint: counters and losses, not parts of the model."""

_DIT_PREFIXES = ("diffusion_ema.ema_model.model.", "diffusion.model.model.", "model.model.")
"""Where a transformer is; the averaged one of a training checkpoint comes first."""

Sources = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True)
class Tables:
    """The tensors of a checkpoint by part; names of `dit` and `embedders` are ours, of `vae` as stored.

    `embedders` and `vae` are None where a file holds a transformer alone.
    """

    dit: Weights
    embedders: Weights | None
    vae: Weights | None


def read_stable_audio_tools(path: Path) -> Tables:
    """A checkpoint of stable-audio-tools: a whole model, a training checkpoint, or a transformer alone.

    Raises WeightsError when no transformer is there, or tensors belong to no part of a model.
    """
    stored = read(path).apply((Int8Rows(),))
    prefix = next((one for one in _DIT_PREFIXES if any(name.startswith(one) for name in stored)), None)
    if prefix is None:
        known = ", ".join(_DIT_PREFIXES)
        raise WeightsError(f"{path}: holds no Stable Audio transformer: no name starts with any of {known}")
    outer = "diffusion." if prefix.startswith("diffusion") else ""
    parts = {part: outer + part for part in ("conditioner.conditioners.", "pretransform.model.")}
    rules = [Drop(pattern, "of training") for pattern in _TRAINING]
    if outer:  # the transformer as last trained, beside its average
        rules.append(
            Drop(r"diffusion\.model\.model\..*" if "ema" in prefix else r"diffusion_ema\..*", "twin")
        )
    known_prefixes = (prefix, *parts.values())
    left = [name for name in stored.apply(rules) if not name.startswith(known_prefixes)]
    if left:
        raise WeightsError(
            f"{path}: {len(left)} tensors belong to no part of this model: {', '.join(left[:10])}"
        )
    embedders, vae = (stored.below(one) for one in parts.values())
    return Tables(
        stored.below(prefix).apply(STABLE_AUDIO_TOOLS),
        embedders.apply(EMBEDDERS) if embedders else None,
        vae if vae else None,
    )


def read_diffusers(folder: Path) -> Tables:
    """The parts of a diffusers folder; its VAE is left to the reader of codecs."""
    return Tables(
        read(folder / "transformer").apply(DIFFUSERS),
        read(folder / "projection_model").apply(DIFFUSERS_EMBEDDERS),
        None,
    )


def load_dit(config: DitConfig, weights: Weights, dtype: mx.Dtype = mx.float32) -> DiT:
    """The network with its parameters, all of them taken from `weights` and nothing left over.

    Raises WeightsError that lists what is missing, misshapen, unexpected or not finite.
    """
    table = dict(dit_table(config))
    shapes = {name: _as_stored(weights, name, shape) for part in table.values() for name, shape in part}
    weights.check(shapes)
    model = DiT(config)
    loaded = []
    for target, sources in table.items():
        arrays = [weights.take(name, shapes[name]).reshape(_squeezed(shape)) for name, shape in sources]
        kept = mx.float32 if target == "time_frequencies" else dtype
        value = mx.array(np.concatenate(arrays) if len(arrays) > 1 else arrays[0]).astype(kept)
        mx.eval(value)
        loaded.append((target, value))
    weights.finish()
    model.load_weights(loaded)
    return model


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[:-1] if shape[-1] == 1 else shape


def _as_stored(weights: Weights, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a table, or without its last axis of one where a layout stores it so."""
    if name in weights and weights.shape(name) == _squeezed(shape):
        return _squeezed(shape)
    return shape


def dit_table(config: DitConfig) -> Iterator[tuple[str, Sources]]:
    """Each parameter of the network, and the tensors it is made of, joined along the first axis."""
    width, context = config.embed_dim, config.context_dim
    yield "time_frequencies", (("time_frequencies", (TIME_FEATURES // 2, 1)),)
    yield from _mlp("time_embed", TIME_FEATURES, width, width, bias=True)
    if config.cond_token_dim:
        yield from _mlp("cond_embed", config.cond_token_dim, context, context)
    if config.global_cond_dim:
        yield from _mlp("global_embed", config.global_cond_dim, width, width)
    if config.adaptive_norm:
        yield from _mlp("modulation", width, width, 6 * width, bias=True)
    if config.memory_tokens:
        yield _same("memory_tokens", config.memory_tokens, width)
    yield _same("preprocess.weight", config.input_channels, config.input_channels, 1)
    yield _same("postprocess.weight", config.io_channels, config.io_channels, 1)
    yield _same("project_in.weight", width, config.input_channels * config.patch_size)
    yield _same("project_out.weight", config.io_channels * config.patch_size, width)
    for index in range(config.depth):
        yield from _block_table(config, index)


def _block_table(config: DitConfig, index: int) -> Iterator[tuple[str, Sources]]:
    at, width, context = f"layers.{index}", config.embed_dim, config.context_dim
    crossed = index < config.cross_layers
    branches = ("self", "cross", "ff") if crossed else ("self", "ff")
    for branch in branches:
        yield _same(f"{at}.{branch}_norm.weight", width)
        yield _same(f"{at}.{branch}_norm.bias", width)
        if config.layer_scale:
            yield _same(f"{at}.{branch}_scale", width)
    square = (width, width)
    yield f"{at}.self_attn.qkv.weight", tuple((f"{at}.self_attn.{one}.weight", square) for one in "qkv")
    yield _same(f"{at}.self_attn.out.weight", *square)
    if crossed:
        yield f"{at}.cross_attn.query.weight", ((f"{at}.cross_attn.q.weight", square),)
        pair = tuple((f"{at}.cross_attn.{one}.weight", (context, context)) for one in "kv")
        yield f"{at}.cross_attn.key_value.weight", pair
        yield _same(f"{at}.cross_attn.out.weight", *square)
    if config.qk_norm == "ln":
        for branch in branches[:-1]:
            for norm in ("q_norm", "k_norm"):
                yield _same(f"{at}.{branch}_attn.{norm}.weight", config.head_dim)
                yield _same(f"{at}.{branch}_attn.{norm}.bias", config.head_dim)
    yield _same(f"{at}.ff.inner.weight", 2 * config.ff_dim, width)
    yield _same(f"{at}.ff.inner.bias", 2 * config.ff_dim)
    yield _same(f"{at}.ff.out.weight", width, config.ff_dim)
    if config.ff_out_bias:
        yield _same(f"{at}.ff.out.bias", width)
    if config.adaptive_norm:
        yield _same(f"{at}.modulation", 6 * width)


def _mlp(
    name: str, inputs: int, hidden: int, outputs: int, *, bias: bool = False
) -> Iterator[tuple[str, Sources]]:
    for part, shape in (("first", (hidden, inputs)), ("second", (outputs, hidden))):
        yield _same(f"{name}.{part}.weight", *shape)
        if bias:
            yield _same(f"{name}.{part}.bias", shape[0])


def _same(name: str, *shape: int) -> tuple[str, Sources]:
    return name, ((name, shape),)

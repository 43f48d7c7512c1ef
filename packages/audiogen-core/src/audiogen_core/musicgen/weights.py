"""The parameters of MusicGen's transformer under their names in each layout of checkpoints.

Parameters that are used together are one here: the projections to queries, keys and values, the heads, the
embeddings. In other layouts such a parameter is in pieces, which are put below one another.
"""

from __future__ import annotations

import re
from typing import Literal

from audiogen_core.lora import Place, Places
from audiogen_core.musicgen.config import STYLE, Config
from audiogen_core.weights import Network, Weights

Layout = Literal["transformers", "audiocraft", "audiogen"]
"""Of transformers, of audiocraft, and of `convert`."""

LAYOUTS: tuple[Layout, ...] = ("transformers", "audiocraft", "audiogen")

NETWORKS: dict[Layout, Network] = {
    "transformers": Network(r"decoder\.(model\.decoder|lm_heads)\."),
    "audiocraft": Network(r"(emb|linears|transformer\.layers)\.\d+\."),
    "audiogen": Network(r"embeddings"),
}
"""How the tensors of a model are known in each layout."""

IGNORED = (
    r"decoder\.model\.decoder\.embed_positions\.weights",  # a table that is computed; in older files
    r"(text_encoder|audio_encoder)\..*",  # for the loaders of T5 and EnCodec, as strict as this one
)
"""Regular expressions of the names that the transformer has no use for."""

_BLOCKS = ("decoder.model.decoder.layers.{i}.", "transformer.layers.{i}.", "layers.{i}.")

_BLOCK = {
    # ours: transformers', audiocraft's, convert's
    "attention_norm": ("self_attn_layer_norm", "norm1", "attention_norm"),
    "qkv.weight": ("self_attn.{part}_proj.weight", "self_attn.in_proj_weight", "attention.in"),
    "out.weight": ("self_attn.out_proj.weight", "self_attn.out_proj.weight", "attention.out"),
    "cross.norm": ("encoder_attn_layer_norm", "norm_cross", "cross_norm"),
    "cross.qkv.weight": ("encoder_attn.{part}_proj.weight", "cross_attention.in_proj_weight", "cross.in"),
    "cross.out.weight": ("encoder_attn.out_proj.weight", "cross_attention.out_proj.weight", "cross.out"),
    "feed_norm": ("final_layer_norm", "norm2", "feed_norm"),
    "up.weight": ("fc1.weight", "linear1.weight", "widen"),
    "down.weight": ("fc2.weight", "linear2.weight", "narrow"),
}
_WHOLE = {
    "embeddings": ("decoder.model.decoder.embed_tokens.{k}.weight", "emb.{k}.weight", "embeddings"),
    "heads.weight": ("decoder.lm_heads.{k}.weight", "linears.{k}.weight", "heads"),
    "norm": ("decoder.model.decoder.layer_norm", "out_norm", "norm"),
    "text": ("enc_to_dec_proj", "condition_provider.conditioners.description.output_proj", "text"),
    "melody": ("audio_enc_to_dec_proj", "condition_provider.conditioners.self_wav.output_proj", "melody"),
}
_PAIRS = ("attention_norm", "cross.norm", "feed_norm", "norm", "text", "melody")  # weights and biases


def pieces(config: Config, layout: Layout) -> dict[str, tuple[str, ...]]:
    """Every parameter a `Transformer` may have -> the tensors it is made of in a layout."""
    column = LAYOUTS.index(layout)
    rows = {ours: theirs[column] for ours, theirs in _WHOLE.items()}
    for i in range(config.layers):
        stem = _BLOCKS[column].format(i=i)
        rows |= {f"blocks.{i}.{ours}": stem + theirs[column] for ours, theirs in _BLOCK.items()}
    table: dict[str, tuple[str, ...]] = {}
    for ours, theirs in rows.items():
        if ours.endswith(_PAIRS):
            table |= {f"{ours}.{leaf}": (f"{theirs}.{leaf}",) for leaf in ("weight", "bias")}
        elif "{part}" in theirs:
            table[ours] = tuple(theirs.format(part=part) for part in "qkv")
        elif "{k}" in theirs:
            table[ours] = tuple(theirs.format(k=k) for k in range(config.codebooks))
        else:
            table[ours] = (theirs,)
    return table


def ignored(config: Config) -> tuple[str, ...]:
    """Regular expressions of the names in a checkpoint that are not of the transformer."""
    return IGNORED if config.style is None else (*IGNORED, re.escape(STYLE) + ".*")


def matrices(config: Config, layout: Layout, table: Weights) -> Places:
    """Where the matrices lie that an adapter may change, by transformers' names of their modules.

    table  the tensors of the layout; those of a text encoder among them may be changed too
    """
    named, stored = pieces(config, "transformers"), pieces(config, layout)
    places = {
        part.removesuffix(".weight"): Place(own[index]) if len(own) > 1 else Place(own[0], index, len(parts))
        for whole, parts in named.items()
        for own in [stored[whole]]
        for index, part in enumerate(parts)
        if own[0] in table and len(table.shape(own[0])) == 2
    }
    text = (name for name in table if name.startswith("text_encoder.") and len(table.shape(name)) == 2)
    return places | {name.removesuffix(".weight"): Place(name) for name in text}

"""The parameters of MusicGen's transformer: their names in each layout, taken strictly and laid out once.

Parameters that are used together are one: the projections to queries, keys and values, the heads, the
embeddings. In other layouts such a parameter is in pieces, which are put below one another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from audiogen_core.errors import OptionError
from audiogen_core.weights import Weights
from audiogen_mlx.musicgen import style
from audiogen_mlx.musicgen.config import Config

Layout = Literal["transformers", "audiocraft", "audiogen"]

DTYPES = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}
BITS = (4, 8)
GROUP = 64
"""Inputs of a quantised linear layer that share a scale and an offset."""

IGNORED = (
    r"decoder\.model\.decoder\.embed_positions\.weights",  # a table that is computed; in older files
    r"(text_encoder|audio_encoder)\..*",  # for the loaders of T5 and EnCodec, as strict as this one
    *style.UNUSED,
)
"""Regular expressions of the names that the transformer has no use for."""

_LAYER = {
    # ours: transformers' pieces, audiocraft's pieces
    "attention_norm": (("self_attn_layer_norm",), ("norm1",)),
    "attention.in": (
        ("self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"),
        ("self_attn.in_proj_weight",),
    ),
    "attention.out": (("self_attn.out_proj.weight",), ("self_attn.out_proj.weight",)),
    "cross_norm": (("encoder_attn_layer_norm",), ("norm_cross",)),
    "cross.in": (
        ("encoder_attn.q_proj.weight", "encoder_attn.k_proj.weight", "encoder_attn.v_proj.weight"),
        ("cross_attention.in_proj_weight",),
    ),
    "cross.out": (("encoder_attn.out_proj.weight",), ("cross_attention.out_proj.weight",)),
    "feed_norm": (("final_layer_norm",), ("norm2",)),
    "widen": (("fc1.weight",), ("linear1.weight",)),
    "narrow": (("fc2.weight",), ("linear2.weight",)),
}
_WHOLE = {
    "embeddings": ("decoder.model.decoder.embed_tokens.{k}.weight", "emb.{k}.weight"),
    "norm": ("decoder.model.decoder.layer_norm", "out_norm"),
    "heads": ("decoder.lm_heads.{k}.weight", "linears.{k}.weight"),
    "text": ("enc_to_dec_proj", "condition_provider.conditioners.description.output_proj"),
    "melody": ("audio_enc_to_dec_proj", "condition_provider.conditioners.self_wav.output_proj"),
}
_LAYERS = ("decoder.model.decoder.layers.{i}.", "transformer.layers.{i}.")

LINEAR = ("attention.in", "attention.out", "cross.in", "cross.out", "widen", "narrow", "heads")
"""Ends of the names of linear layers without a bias, which may be quantised."""


@dataclass(frozen=True)
class Parameter:
    """One parameter: its shape, and the pieces of it in a layout, of equal shapes."""

    shape: tuple[int, ...]
    pieces: tuple[str, ...]

    @property
    def piece_shape(self) -> tuple[int, ...]:
        return (self.shape[0] // len(self.pieces), *self.shape[1:])


def parameters(config: Config, layout: Layout) -> dict[str, Parameter]:
    """Our name -> parameter, of everything the transformer has, without a style conditioner."""
    column = 0 if layout == "transformers" else 1
    table: dict[str, Parameter] = {}

    def add(name: str, shape: tuple[int, ...], pieces: Sequence[str]) -> None:
        table[name] = Parameter(shape, (name,) if layout == "audiogen" else tuple(pieces))

    def add_pair(name: str, stem: str, weight: tuple[int, ...]) -> None:
        add(f"{name}.weight", weight, [f"{stem}.weight"])
        add(f"{name}.bias", weight[:1], [f"{stem}.bias"])

    width, size, count = config.width, config.codebook_size, config.codebooks
    for name, rows in (("embeddings", size + 1), ("heads", size)):
        add(name, (count * rows, width), [_WHOLE[name][column].format(k=k) for k in range(count)])
    for i in range(config.layers):
        stem = _LAYERS[column].format(i=i)
        for name, shape in _layer_shapes(config).items():
            pieces = [stem + piece for piece in _LAYER[name][column]]
            if name.endswith("norm"):
                add_pair(f"layers.{i}.{name}", pieces[0], shape)
            else:
                add(f"layers.{i}.{name}", shape, pieces)
    add_pair("norm", _WHOLE["norm"][column], (width,))
    if config.text_projected:
        add_pair("text", _WHOLE["text"][column], (width, config.text_width))
    if config.chroma is not None:
        add_pair("melody", _WHOLE["melody"][column], (width, config.chroma.bins))
    return table


def _layer_shapes(config: Config) -> dict[str, tuple[int, ...]]:
    width, hidden = config.width, config.hidden
    shapes: dict[str, tuple[int, ...]] = {
        "attention_norm": (width,),
        "attention.in": (3 * width, width),
        "attention.out": (width, width),
        "cross_norm": (width,),
        "cross.in": (3 * width, width),
        "cross.out": (width, width),
        "feed_norm": (width,),
        "widen": (hidden, width),
        "narrow": (width, hidden),
    }
    if config.text_in_prefix:
        shapes = {name: shape for name, shape in shapes.items() if not name.startswith("cross")}
    return shapes


@dataclass(frozen=True)
class Quantized:
    """A matrix (out, in) in 4 or 8 bits: packed values, and a scale and an offset per group of inputs."""

    packed: mx.array
    scales: mx.array
    offsets: mx.array
    bits: int

    def rows(self, start: int, stop: int) -> Quantized:
        return Quantized(
            self.packed[start:stop], self.scales[start:stop], self.offsets[start:stop], self.bits
        )

    @staticmethod
    def suffixes() -> tuple[str, str, str]:
        """How the three parts are named in a file, after the name of the matrix."""
        return "", ".scales", ".offsets"


Matrix = mx.array | Quantized


class Source:
    """Hands out the parameters of one checkpoint, each once, in a dtype or quantised.

    layout  whose names the table has
    dtype   one of DTYPES: of everything but norms, which are float32 in any case
    bits    4 or 8 quantises the linear layers that are not yet; None leaves them as they are

    Raises OptionError for an unknown dtype or number of bits, or a model that cannot be quantised;
    WeightsError lists what is missing or misshapen.
    """

    def __init__(
        self,
        table: Weights,
        config: Config,
        layout: Layout,
        *,
        dtype: str = "float32",
        bits: int | None = None,
        stored_bits: int | None = None,
    ) -> None:
        if dtype not in DTYPES:
            raise OptionError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
        if bits is not None and bits not in BITS:
            raise OptionError(f"bits must be one of {', '.join(map(str, BITS))}, got {bits}")
        if stored_bits is not None and bits not in (None, stored_bits):
            raise OptionError(f"this model is stored in {stored_bits} bits and cannot be loaded in {bits}")
        self.config = config
        self.dtype = DTYPES[dtype]
        self.bits = stored_bits or bits
        self._stored_bits = stored_bits
        self._table = table
        self.parameters = parameters(config, layout)
        self._check_quantizable()
        table.check(self._expected())

    def vector(self, name: str) -> mx.array:
        """A small parameter, in float32."""
        return mx.array(self._whole(name))

    def array(self, name: str) -> mx.array:
        """A parameter in the dtype, as it is shaped."""
        made = mx.array(self._whole(name)).astype(self.dtype)
        mx.eval(made)
        return made

    def matrix(self, name: str) -> Matrix:
        """The matrix (out, in) of a linear layer."""
        if self.bits is None:
            return self.array(name)
        if self._stored_bits is None:
            parts = mx.quantize(self.array(name), group_size=GROUP, bits=self.bits)
        else:
            shapes = quantized_shapes(self.parameters[name].shape, self.bits)
            kinds: tuple[Any, ...] = (np.uint32, np.float32, np.float32)
            packed, scales, offsets = (
                mx.array(self._table.take(name + suffix, shape, kind))
                for suffix, shape, kind in zip(Quantized.suffixes(), shapes, kinds, strict=True)
            )
            parts = packed, scales.astype(self.dtype), offsets.astype(self.dtype)
        mx.eval(parts)
        return Quantized(*parts, self.bits)

    def each(self) -> Iterator[tuple[str, Callable[[], Matrix]]]:
        """Every parameter by name, in order, as something that reads it: for `convert`."""
        for name, parameter in self.parameters.items():
            if is_linear(name):
                yield name, lambda name=name: self.matrix(name)  # type: ignore[misc]
            else:
                read = self.vector if len(parameter.shape) == 1 else self.array
                yield name, lambda name=name, read=read: read(name)  # type: ignore[misc]

    def finish(self) -> None:
        """Raises WeightsError when tensors are left that nobody knows."""
        self._table.finish(IGNORED)

    def _whole(self, name: str) -> NDArray[np.float32]:
        parameter = self.parameters[name]
        if len(parameter.pieces) == 1:
            return self._table.take(parameter.pieces[0], parameter.shape)
        made = np.empty(parameter.shape, np.float32)
        rows = parameter.piece_shape[0]
        for index, piece in enumerate(parameter.pieces):
            made[index * rows : (index + 1) * rows] = self._table.take(piece, parameter.piece_shape)
        return made

    def _check_quantizable(self) -> None:
        widths = {"width": self.config.width, "hidden width": self.config.hidden}
        for name, value in widths.items():
            if self.bits is not None and value % GROUP:
                raise OptionError(
                    f"this model cannot be quantised: its {name}, {value}, is no multiple of {GROUP}"
                )

    def _expected(self) -> Mapping[str, tuple[int, ...]]:
        expected: dict[str, tuple[int, ...]] = {}
        for name, parameter in self.parameters.items():
            if self._stored_bits is not None and is_linear(name):
                shapes = quantized_shapes(parameter.shape, self._stored_bits)
                expected |= dict(zip((name + suffix for suffix in Quantized.suffixes()), shapes, strict=True))
            else:
                expected |= dict.fromkeys(parameter.pieces, parameter.piece_shape)
        return expected


def is_linear(name: str) -> bool:
    """Whether a parameter is the matrix of a linear layer without a bias."""
    return name.endswith(LINEAR)


def quantized_shapes(shape: tuple[int, ...], bits: int) -> tuple[tuple[int, ...], ...]:
    """Shapes of the packed values (32-bit words), the scales and the offsets of a matrix (out, in)."""
    rows, columns = shape
    return (rows, columns * bits // 32), (rows, columns // GROUP), (rows, columns // GROUP)

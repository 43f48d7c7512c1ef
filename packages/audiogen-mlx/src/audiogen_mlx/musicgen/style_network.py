"""The network behind style tokens: transformer, batch norm, residual quantiser, projection. Float32."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from audiogen_core.errors import ModelError
from audiogen_core.layers import ResidualQuantizer
from audiogen_core.weights import Weights
from audiogen_mlx.musicgen.melody import conditioner_settings
from audiogen_mlx.musicgen.parts import LayerNorm, Linear, attend, gelu, positions
from audiogen_mlx.ops import MlxOps

PREFIX = "condition_provider.conditioners.self_wav."
"""Where the parameters are in an audiocraft checkpoint."""

UNUSED = (
    r".*\.rvq\.vq\.layers\.\d+\._codebook\.(inited|cluster_size|embed_avg)",
    r".*\.batch_norm\.num_batches_tracked",
)
"""Regular expressions of the names that only training needs; for `Weights.finish`."""

_HEADS = {"default": 8, "xsmall": 8, "large": 16}  # of the transformer, by its size's name in the settings
_BATCH_NORM_EPS = 1e-5


@dataclass(frozen=True)
class StyleConfig:
    """The facts of a style conditioner. The defaults are those of the published model.

    sample_rate  Hz, of the music model
    seconds      of the excerpt, unless asked otherwise
    stride       vectors of MERT per token
    codebooks    of the quantiser
    eval_q       codebooks that are used, unless asked otherwise
    heads        of the transformer
    batch_norm   whether there is one

    Widths, layers and codebook sizes are read off the weights. Raises ModelError when it makes no sense.
    """

    sample_rate: int = 32_000
    seconds: float = 3.0
    stride: int = 15
    codebooks: int = 6
    eval_q: int = 3
    heads: int = 8
    batch_norm: bool = True

    def __post_init__(self) -> None:
        good = min(self.sample_rate, self.seconds, self.stride, self.heads) > 0
        if not good or not 1 <= self.eval_q <= self.codebooks:
            raise ModelError(f"the settings do not describe a style conditioner: {self}")

    @classmethod
    def from_audiocraft(cls, settings: Mapping[str, Any]) -> StyleConfig:
        """From all settings of an audiocraft checkpoint (its `xp.cfg`, as a table). Raises ModelError.

        A transformer of a size that audiocraft does not name has as many heads as the music model's.
        """
        own = conditioner_settings(settings, "style")
        if own.get("model_name", "mert") != "mert":
            raise ModelError(
                f"a style conditioner on {own['model_name']!r} is not known here; expected 'mert'"
            )
        music = settings.get("transformer_lm") or {}
        scale = str(own.get("transformer_scale", "default"))
        try:
            return cls(
                sample_rate=int(own.get("sample_rate", cls.sample_rate)),
                seconds=float(own.get("length", cls.seconds)),
                stride=int(own.get("ds_factor", cls.stride)),
                codebooks=int(own.get("n_q_out", cls.codebooks)),
                eval_q=int(own.get("eval_q", cls.eval_q)),
                heads=int(_HEADS.get(scale) or music.get("num_heads", cls.heads)),
                batch_norm=bool(own.get("batch_norm", True)),
            )
        except (TypeError, ValueError) as error:
            raise ModelError(f"the settings do not describe a style conditioner: {error}") from error


class StyleNetwork:
    """What MERT heard to style tokens.

    inputs   width of MERT's vectors
    outputs  width of the tokens, that of the music model
    tokens   are `config.stride` vectors apart

    Raises WeightsError when a parameter is missing, misshapen or not finite.
    """

    def __init__(self, table: Weights, config: StyleConfig, *, prefix: str = PREFIX) -> None:
        self.config = config
        width, self.inputs = _matrix(table, f"{prefix}embed.weight")
        self.outputs, _ = _matrix(table, f"{prefix}output_proj.weight")
        if width % config.heads:
            raise ModelError(f"a style transformer {width} wide cannot have {config.heads} heads")
        self._embed = Linear(table, f"{prefix}embed", self.inputs, width)
        self._layers = [
            _Layer(table, f"{prefix}transformer.layers.{index}", width, config.heads)
            for index in range(_layer_count(table, f"{prefix}transformer.layers."))
        ]
        self._batch_norm = _BatchNorm(table, f"{prefix}batch_norm", width) if config.batch_norm else None
        self._quantizer = ResidualQuantizer(
            MlxOps(),
            [
                table.take(f"{prefix}rvq.vq.layers.{index}._codebook.embed", (None, width))
                for index in range(config.codebooks)
            ],
        )
        self._output = Linear(table, f"{prefix}output_proj", width, self.outputs)

    def __call__(self, heard: mx.array, *, eval_q: int, stride: int) -> mx.array:
        """(B, F, inputs) -> (B, ceil(F / stride), outputs), by the first `eval_q` codebooks."""
        coarse = self._quantizer.decode(self.codes(self.normalised(self.context(heard)), eval_q))
        return self._output(coarse[:, ::stride])

    def context(self, heard: mx.array) -> mx.array:
        """(B, F, inputs) -> (B, F, width), what the transformer gives."""
        x = self._embed(heard)
        x = x + mx.array(positions(*x.shape[1:]))
        for layer in self._layers:
            x = layer(x)
        return x

    def normalised(self, x: mx.array) -> mx.array:
        """(B, F, width) by the statistics of training."""
        return x if self._batch_norm is None else self._batch_norm(x)

    def codes(self, x: mx.array, count: int) -> list[mx.array]:
        """(B, F, width) -> the indices (B, F) in each of the first `count` codebooks."""
        return self._quantizer.encode(x, count)


class _Layer:
    """Attention of all to all, then a feed-forward part; each on a normalised input and added to it."""

    def __init__(self, table: Weights, at: str, width: int, heads: int) -> None:
        self.heads = heads
        self.attention_norm = LayerNorm(table, f"{at}.norm1", width)
        joined = table.take(f"{at}.self_attn.in_proj_weight", (3 * width, width))  # query, key, value
        self.qkv = mx.contiguous(mx.array(joined).T)
        mx.eval(self.qkv)
        self.out = Linear(table, f"{at}.self_attn.out_proj", width, width, bias=False)
        self.feed_norm = LayerNorm(table, f"{at}.norm2", width)
        self.widen = Linear(table, f"{at}.linear1", width, 4 * width, bias=False)
        self.narrow = Linear(table, f"{at}.linear2", 4 * width, width, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        query, key, value = mx.split(self.attention_norm(x) @ self.qkv, 3, axis=-1)
        x = x + self.out(attend(query, key, value, self.heads))
        return x + self.narrow(gelu(self.widen(self.feed_norm(x))))


class _BatchNorm:
    """Each channel by the mean and variance it had in training."""

    def __init__(self, table: Weights, name: str, width: int) -> None:
        mean = table.take(f"{name}.running_mean", (width,))
        variance = table.take(f"{name}.running_var", (width,))
        self.mean = mx.array(mean)
        self.factor = mx.array(1 / np.sqrt(variance + np.float32(_BATCH_NORM_EPS)))

    def __call__(self, x: mx.array) -> mx.array:
        return (x - self.mean) * self.factor


def _matrix(table: Weights, name: str) -> tuple[int, int]:
    shape = table.shape(name)
    if len(shape) != 2:
        raise ModelError(f"{table.source}: {name} has shape {shape}, expected a matrix")
    return shape[0], shape[1]


def _layer_count(table: Weights, prefix: str) -> int:
    found = [re.match(r"\d+", name.removeprefix(prefix)) for name in table if name.startswith(prefix)]
    return 1 + max((int(number[0]) for number in found if number), default=-1)

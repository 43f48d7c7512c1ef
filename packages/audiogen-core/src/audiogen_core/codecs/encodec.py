"""EnCodec (arXiv 2210.13438): configuration, weights and network, for the 24 kHz and 32 kHz models.

One convolutional network either side of two LSTM layers; what differs between the published models is in
`EncodecConfig`. All three layouts of weights lead to the same names (those of transformers).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from audiogen_core.codec import Codec, CodecInfo, fingerprint
from audiogen_core.codecs.layers import Conv, ConvTranspose, Elu, Layer, Residual
from audiogen_core.errors import ModelError
from audiogen_core.ops import LstmLayer, Ops, PadMode
from audiogen_core.stages import Convolutional, Recurrent, Stage
from audiogen_core.weights import Drop, FuseWeightNorm, Rename, Rules, Weights

TRANSFORMERS: Rules = (
    FuseWeightNorm(),
    Drop(r"quantizer\..*\.(inited|cluster_size|embed_avg)", "statistics of training"),
)
"""transformers' `EncodecModel` -> our names."""

ORIGINAL: Rules = (
    Rename(r"^(encoder|decoder)\.model\.", r"\1.layers."),
    Rename(r"\.(conv|convtr)\.(conv|convtr)\.", ".conv."),
    Rename(r"^quantizer\.vq\.layers\.(\d+)\._codebook\.", r"quantizer.layers.\1.codebook."),
    *TRANSFORMERS,
)
"""The original package and audiocraft -> our names. Layers are numbered alike."""


@dataclass(frozen=True)
class EncodecConfig:
    """The facts of one EnCodec. Widths count channels, kernels samples."""

    sample_rate: int
    channels: int
    ratios: tuple[int, ...]
    filters: int
    dimension: int
    codebooks: int
    codebook_size: int
    causal: bool
    shortcut: bool
    kernel: int = 7
    last_kernel: int = 7
    residual_kernel: int = 3
    residual_layers: int = 1
    dilation_growth: int = 2
    compress: int = 2
    lstm_layers: int = 2
    pad_mode: PadMode = "reflect"
    trim_right_ratio: float = 1.0

    def __post_init__(self) -> None:
        counts = {name: value for name, value in vars(self).items() if isinstance(value, int)}
        counts |= {f"ratios[{i}]": ratio for i, ratio in enumerate(self.ratios)}
        for name, count in counts.items():
            if count < 1 and name not in ("causal", "shortcut", "lstm_layers", "residual_layers"):
                raise ModelError(f"the configuration does not describe an EnCodec: {name} is {count}")

    @property
    def hop_length(self) -> int:
        return math.prod(self.ratios)


def from_transformers(config: Mapping[str, Any]) -> EncodecConfig:
    """The configuration of a transformers `EncodecModel` (its config.json).

    Raises ModelError for a model this reader does not cover, and names the reason.
    """
    if config.get("norm_type") != "weight_norm" or config.get("normalize"):
        raise ModelError(
            "this EnCodec normalises its audio or its layers (the 48 kHz model does); "
            "the 24 kHz and 32 kHz models are supported"
        )
    try:
        ratios = tuple(int(ratio) for ratio in config["upsampling_ratios"])
        rate, size = int(config["sampling_rate"]), int(config["codebook_size"])
        frame_rate = math.ceil(rate / max(1, math.prod(ratios)))
        bandwidths = [float(bandwidth) for bandwidth in config["target_bandwidths"]]
        bits = max(1, math.ceil(math.log2(max(2, size))))
        return EncodecConfig(
            sample_rate=rate,
            channels=int(config["audio_channels"]),
            ratios=ratios,
            filters=int(config["num_filters"]),
            dimension=int(config["hidden_size"]),
            codebooks=int(1000 * bandwidths[-1] // (frame_rate * bits)),
            codebook_size=size,
            causal=bool(config["use_causal_conv"]),
            shortcut=bool(config["use_conv_shortcut"]),
            kernel=int(config["kernel_size"]),
            last_kernel=int(config["last_kernel_size"]),
            residual_kernel=int(config["residual_kernel_size"]),
            residual_layers=int(config["num_residual_layers"]),
            dilation_growth=int(config["dilation_growth_rate"]),
            compress=int(config["compress"]),
            lstm_layers=int(config["num_lstm_layers"]),
            pad_mode=_pad_mode(config["pad_mode"]),
            trim_right_ratio=float(config["trim_right_ratio"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"config.json does not describe an EnCodec: {error!r}") from error


def from_audiocraft(config: Mapping[str, Any]) -> EncodecConfig:
    """The configuration inside an audiocraft compression package (its `xp.cfg`, parsed and resolved)."""
    if config.get("compression_model") != "encodec":
        raise ModelError(f"audiocraft compression model {config.get('compression_model')!r} is not EnCodec")
    seanet, rvq, encodec = config["seanet"], config["rvq"], config["encodec"]
    if encodec.get("renormalize") or seanet.get("norm") != "weight_norm":
        raise ModelError(
            "this audiocraft EnCodec renormalises its audio or its layers, which is not supported"
        )
    if not all(not part or set(part) <= _DECODER_ONLY for part in (seanet["encoder"], seanet["decoder"])):
        raise ModelError("this audiocraft EnCodec has an encoder and a decoder of different shapes")
    try:
        return EncodecConfig(
            sample_rate=int(encodec["sample_rate"]),
            channels=int(encodec["channels"]),
            ratios=tuple(int(ratio) for ratio in seanet["ratios"]),
            filters=int(seanet["n_filters"]),
            dimension=int(seanet["dimension"]),
            codebooks=int(rvq["n_q"]),
            codebook_size=int(rvq["bins"]),
            causal=bool(seanet["causal"]),
            shortcut=not seanet["true_skip"],
            kernel=int(seanet["kernel_size"]),
            last_kernel=int(seanet["last_kernel_size"]),
            residual_kernel=int(seanet["residual_kernel_size"]),
            residual_layers=int(seanet["n_residual_layers"]),
            dilation_growth=int(seanet["dilation_base"]),
            compress=int(seanet["compress"]),
            lstm_layers=int(seanet["lstm"]),
            pad_mode=_pad_mode(seanet["pad_mode"]),
            trim_right_ratio=float((seanet["decoder"] or {}).get("trim_right_ratio", 1.0)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"xp.cfg does not describe an EnCodec: {error!r}") from error


def from_shapes(shapes: Mapping[str, tuple[int, ...]]) -> EncodecConfig:
    """The configuration of an original EnCodec file, which carries none: the 24 kHz model's family.

    Everything that varies in that family (widths, strides, codebooks) is a shape; what does not (causal,
    24 kHz, reflection, a shortcut convolution) is the model's own. Raises ModelError for other families.
    """
    first = shapes.get("encoder.layers.0.conv.weight")
    lstm = next((name for name in shapes if name.startswith("encoder.") and ".lstm." in name), None)
    if first is None or lstm is None or "encoder.layers.0.norm.weight" in shapes:
        raise ModelError(
            "not an original EnCodec file of the 24 kHz family; "
            "for other models use the folder in transformers' layout"
        )
    last = int(lstm.split(".")[2]) + 2
    downs = [
        shapes[f"encoder.layers.{index}.conv.weight"]
        for index in range(1, last)
        if f"encoder.layers.{index}.conv.weight" in shapes
    ]
    residual = shapes["encoder.layers.1.block.1.conv.weight"]
    books = [shape for name, shape in shapes.items() if name.startswith("quantizer.")]
    layers = {
        name.rsplit("_l", 1)[1] for name in shapes if name.startswith(f"encoder.layers.{last - 2}.lstm.")
    }
    if not downs or not books:
        raise ModelError("an original EnCodec file without strided convolutions or codebooks")
    size = books[0][0]
    ratios = tuple(shape[2] // 2 for shape in reversed(downs))
    return EncodecConfig(
        sample_rate=24000,
        channels=first[1],
        ratios=ratios,
        filters=first[0],
        dimension=shapes[f"encoder.layers.{last}.conv.weight"][0],
        codebooks=len(books),
        codebook_size=size,
        causal=True,
        shortcut="encoder.layers.1.shortcut.conv.weight" in shapes,
        kernel=first[2],
        last_kernel=shapes[f"encoder.layers.{last}.conv.weight"][2],
        residual_kernel=residual[2],
        residual_layers=(last - 2 - 1 - 2 * len(downs)) // len(downs),
        compress=residual[1] // residual[0],
        lstm_layers=len(layers),
    )


def build(config: EncodecConfig, weights: Weights, ops: Ops, name: str | None = None) -> Codec:
    """A codec from its configuration and weights in transformers' names, strictly.

    `name` is the codec's id; without one it is derived from the rate and the codebooks' hash. Raises
    WeightsError when a tensor is missing, left over, misshapen or not finite.
    """
    shape = (config.codebook_size, config.dimension)
    codebooks = np.stack(
        [weights.take(f"quantizer.layers.{i}.codebook.embed", shape) for i in range(config.codebooks)]
    )
    info = CodecInfo(
        name=name or f"encodec-{config.sample_rate // 1000}khz@{fingerprint(codebooks)}",
        sample_rate=config.sample_rate,
        channels=config.channels,
        hop_length=config.hop_length,
        codebooks=config.codebooks,
        codebook_size=config.codebook_size,
    )
    network = _Network(config, weights, ops)
    codec = Codec(
        info,
        ops,
        encoder=network.encoder(),
        decoder=network.decoder(),
        codebooks=codebooks,
    )
    weights.finish()
    return codec


class _Network:
    """Builds the stages, taking each tensor once, under the name it has in transformers' layout."""

    def __init__(self, config: EncodecConfig, weights: Weights, ops: Ops) -> None:
        self.config = config
        self.weights = weights
        self.ops = ops
        self.index: Iterator[int] = iter(())
        self.side = ""

    def encoder(self) -> list[Stage]:
        c = self.config
        self._begin("encoder")
        width = c.filters
        layers: list[Layer] = [self._conv(self._next(), c.channels, width, c.kernel)]
        for ratio in reversed(c.ratios):
            layers += self._residuals(width)
            layers += [self._elu(), self._conv(self._next(), width, 2 * width, 2 * ratio, stride=ratio)]
            width *= 2
        recurrent = self._lstm(width)
        tail: list[Layer] = [self._elu(), self._conv(self._next(), width, c.dimension, c.last_kernel)]
        return [Convolutional(layers, down=c.hop_length), *recurrent, Convolutional(tail)]

    def decoder(self) -> list[Stage]:
        c = self.config
        self._begin("decoder")
        width = c.filters * 2 ** len(c.ratios)
        head = [self._conv(self._next(), c.dimension, width, c.kernel)]
        recurrent = self._lstm(width)
        layers: list[Layer] = []
        for ratio in c.ratios:
            layers += [self._elu(), self._conv_transpose(self._next(), width, width // 2, ratio)]
            width //= 2
            layers += self._residuals(width)
        layers += [self._elu(), self._conv(self._next(), width, c.channels, c.last_kernel)]
        return [Convolutional(head), *recurrent, Convolutional(layers, up=c.hop_length)]

    def _begin(self, side: str) -> None:
        self.side = side
        self.index = iter(range(1 << 16))

    def _next(self) -> str:
        return f"{self.side}.layers.{next(self.index)}"

    def _elu(self) -> Elu:
        next(self.index)
        return Elu()

    def _conv(
        self, name: str, inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1
    ) -> Conv:
        weight = self.weights.take(f"{name}.conv.weight", (outputs, inputs, kernel))
        bias = self.weights.take(f"{name}.conv.bias", (outputs,))
        total = (kernel - 1) * dilation + 1 - stride
        right = 0 if self.config.causal else total // 2
        return Conv(
            weight=self.ops.conv_weight(weight),
            bias=self.ops.vector(bias),
            kernel=kernel,
            stride=stride,
            dilation=dilation,
            left=total - right,
            right=right,
            mode=self.config.pad_mode,
            fill_last=True,
        )

    def _conv_transpose(self, name: str, inputs: int, outputs: int, ratio: int) -> ConvTranspose:
        kernel = 2 * ratio
        weight = self.weights.take(f"{name}.conv.weight", (inputs, outputs, kernel))
        bias = self.weights.take(f"{name}.conv.bias", (outputs,))
        surplus = kernel - ratio
        right = math.ceil(surplus * self.config.trim_right_ratio) if self.config.causal else surplus // 2
        return ConvTranspose(
            weight=self.ops.conv_transpose_weight(weight),
            bias=self.ops.vector(bias),
            kernel=kernel,
            stride=ratio,
            left=surplus - right,
            right=right,
        )

    def _residuals(self, width: int) -> list[Layer]:
        c = self.config
        layers: list[Layer] = []
        for j in range(c.residual_layers):
            name = self._next()
            hidden = width // c.compress
            branch: list[Layer] = [
                Elu(),
                self._conv(
                    f"{name}.block.1", width, hidden, c.residual_kernel, dilation=c.dilation_growth**j
                ),
                Elu(),
                self._conv(f"{name}.block.3", hidden, width, 1),
            ]
            shortcut = self._conv(f"{name}.shortcut", width, width, 1) if c.shortcut else None
            layers.append(Residual(branch, shortcut))
        return layers

    def _lstm(self, width: int) -> list[Stage]:
        if not self.config.lstm_layers:
            return []
        name = self._next()
        take = self.weights.take
        layers = [
            LstmLayer(
                take(f"{name}.lstm.weight_ih_l{i}", (4 * width, width)),
                take(f"{name}.lstm.weight_hh_l{i}", (4 * width, width)),
                take(f"{name}.lstm.bias_ih_l{i}", (4 * width,))
                + take(f"{name}.lstm.bias_hh_l{i}", (4 * width,)),
            )
            for i in range(self.config.lstm_layers)
        ]
        return [Recurrent(self.ops.lstm(layers))]


_DECODER_ONLY = {"trim_right_ratio", "final_activation", "final_activation_params"}


def _pad_mode(mode: object) -> PadMode:
    if mode == "reflect":
        return "reflect"
    if mode == "constant":
        return "constant"
    raise ModelError(f"padding mode {mode!r} is not one EnCodec uses (reflect, constant)")

"""What an EnCodec is like: its configuration, read from each layout it is published in."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from audiogen_core.errors import ModelError
from audiogen_core.ops import PadMode
from audiogen_core.settings import Section


@dataclass(frozen=True)
class EncodecConfig:
    """The facts of one EnCodec. Widths count channels, kernels and chunks samples.

    A model with `group_norm` works in chunks (`chunk_length`, `chunk_stride`); 0 means the whole clip.
    """

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
    group_norm: bool = False
    chunk_length: int = 0
    chunk_stride: int = 0

    def __post_init__(self) -> None:
        counts = {name: value for name, value in vars(self).items() if isinstance(value, int)}
        counts |= {f"ratios[{i}]": ratio for i, ratio in enumerate(self.ratios)}
        for name, count in counts.items():
            if not (0 if name in _MAY_BE_ZERO else 1) <= count < 1 << 24:
                raise ModelError(f"the configuration does not describe an EnCodec: {name} is {count}")
        if not self.chunk_length and self.group_norm:
            raise ModelError("this EnCodec normalises its layers over whole clips, which is not supported")
        if not (
            self.chunk_stride <= self.chunk_length and bool(self.chunk_stride) == bool(self.chunk_length)
        ):
            raise ModelError(
                "the configuration does not describe an EnCodec: "
                f"chunks of {self.chunk_length} samples every {self.chunk_stride}"
            )

    @property
    def hop_length(self) -> int:
        return math.prod(self.ratios)


def from_transformers(config: Mapping[str, Any]) -> EncodecConfig:
    """The configuration of a transformers `EncodecModel` (its config.json).

    Raises ModelError for a model this reader does not cover, and names the reason.
    """
    norm, seconds = config.get("norm_type"), config.get("chunk_length_s")
    if norm not in ("weight_norm", "time_group_norm"):
        raise ModelError(f"norm_type {norm!r} is not one EnCodec uses (weight_norm, time_group_norm)")
    if bool(config.get("normalize")) != bool(seconds):
        raise ModelError(
            "an EnCodec that normalises loudness does so chunk by chunk, as the 48 kHz model; "
            "this configuration has only one of normalize and chunk_length_s"
        )
    table = Section(config, "config.json does not describe an EnCodec")
    ratios = table.many("upsampling_ratios", int)
    rate, size = table.count("sampling_rate"), table.count("codebook_size")
    # A bandwidth, kbit/s, is codebooks * bits of an entry * frames per second; the last is that of all.
    frame_rate = math.ceil(rate / max(1, math.prod(ratios)))
    bits = max(1, math.ceil(math.log2(max(2, size))))
    bandwidths = table.many("target_bandwidths", float)
    chunk = int(table.take("chunk_length_s", float, 0.0) * rate)
    return EncodecConfig(
        sample_rate=rate,
        channels=table.count("audio_channels"),
        ratios=ratios,
        filters=table.count("num_filters"),
        dimension=table.count("hidden_size"),
        codebooks=int(1000 * bandwidths[-1] // (frame_rate * bits)) if bandwidths else 0,
        codebook_size=size,
        causal=table.take("use_causal_conv", bool),
        shortcut=table.take("use_conv_shortcut", bool),
        kernel=table.count("kernel_size"),
        last_kernel=table.count("last_kernel_size"),
        residual_kernel=table.count("residual_kernel_size"),
        residual_layers=table.count("num_residual_layers", least=0),
        dilation_growth=table.count("dilation_growth_rate"),
        compress=table.count("compress"),
        lstm_layers=table.count("num_lstm_layers", least=0),
        pad_mode=_pad_mode(table.take("pad_mode", str)),
        trim_right_ratio=table.take("trim_right_ratio", float),
        group_norm=norm == "time_group_norm",
        chunk_length=chunk,
        chunk_stride=max(1, int((1 - table.take("overlap", float)) * chunk)) if chunk else 0,
    )


def from_audiocraft(config: Mapping[str, Any]) -> EncodecConfig:
    """The configuration inside an audiocraft compression package (its `xp.cfg`, parsed and resolved)."""
    if config.get("compression_model") != "encodec":
        raise ModelError(f"audiocraft compression model {config.get('compression_model')!r} is not EnCodec")
    table = Section(config, "xp.cfg does not describe an EnCodec")
    seanet, rvq, encodec = table.section("seanet"), table.section("rvq"), table.section("encodec")
    if encodec.take("renormalize", bool, False) or seanet.take("norm", str, "") != "weight_norm":
        raise ModelError(
            "this audiocraft EnCodec renormalises its audio or its layers, which is not supported"
        )
    sides = [seanet.section("encoder", optional=True), seanet.section("decoder", optional=True)]
    trims = [side.take("trim_right_ratio", float, 1.0) for side in sides]
    for side in sides:
        side.ignore("final_activation", "final_activation_params")
        if side.left:
            raise ModelError("this audiocraft EnCodec has an encoder and a decoder of different shapes")
    return EncodecConfig(
        sample_rate=encodec.count("sample_rate"),
        channels=encodec.count("channels"),
        ratios=seanet.many("ratios", int),
        filters=seanet.count("n_filters"),
        dimension=seanet.count("dimension"),
        codebooks=rvq.count("n_q"),
        codebook_size=rvq.count("bins"),
        causal=seanet.take("causal", bool),
        shortcut=not seanet.take("true_skip", bool),
        kernel=seanet.count("kernel_size"),
        last_kernel=seanet.count("last_kernel_size"),
        residual_kernel=seanet.count("residual_kernel_size"),
        residual_layers=seanet.count("n_residual_layers", least=0),
        dilation_growth=seanet.count("dilation_base"),
        compress=seanet.count("compress"),
        lstm_layers=seanet.count("lstm", least=0),
        pad_mode=_pad_mode(seanet.take("pad_mode", str)),
        trim_right_ratio=trims[1],
    )


def from_shapes(shapes: Mapping[str, tuple[int, ...]]) -> EncodecConfig:
    """The configuration of an original EnCodec file, which carries none.

    Everything that varies in a family (widths, strides, codebooks) is a shape; what does not is the
    model's own: 24 kHz and causal, or, where the layers have norms, 48 kHz in chunks of one second of which
    a hundredth overlaps. Reflection and a shortcut are common. Raises ModelError for other files.
    """
    try:
        return _from_shapes(shapes)
    except (IndexError, KeyError, ZeroDivisionError) as error:
        raise ModelError("an original EnCodec file whose tensors have shapes of another model") from error


def _from_shapes(shapes: Mapping[str, tuple[int, ...]]) -> EncodecConfig:
    first = shapes.get("encoder.layers.0.conv.weight")
    recurrent = (re.match(r"encoder\.layers\.(\d{1,3})\.lstm\.", name) for name in shapes)
    lstm = next(filter(None, recurrent), None)
    if first is None or lstm is None:
        raise ModelError(
            "not an original EnCodec file of the 24 kHz or 48 kHz family; "
            "for other models use the folder in transformers' layout"
        )
    chunked = "encoder.layers.0.norm.weight" in shapes
    last = int(lstm[1]) + 2  # behind the LSTM come an ELU and the last convolution
    downs = [
        shapes[f"encoder.layers.{index}.conv.weight"]
        for index in range(1, last)
        if f"encoder.layers.{index}.conv.weight" in shapes
    ]
    branches = [shapes[name] for name in shapes if re.fullmatch(r"encoder\..*\.block\.1\.conv\.weight", name)]
    books = [shape for name, shape in shapes.items() if name.startswith("quantizer.")]
    layers = {
        name.rsplit("_l", 1)[1] for name in shapes if name.startswith(f"encoder.layers.{last - 2}.lstm.")
    }
    if not downs or not books or not branches:
        raise ModelError(
            "an original EnCodec file without strided convolutions, residual blocks or codebooks"
        )
    residual = max(branches)  # the widest: what a width is divided by shows in it without a remainder
    size = books[0][0]
    ratios = tuple(shape[2] // 2 for shape in reversed(downs))  # kernels are twice as long as their strides
    return EncodecConfig(
        sample_rate=48000 if chunked else 24000,
        channels=first[1],
        ratios=ratios,
        filters=first[0],
        dimension=shapes[f"encoder.layers.{last}.conv.weight"][0],
        codebooks=len(books),
        codebook_size=size,
        causal=not chunked,
        shortcut="encoder.layers.1.shortcut.conv.weight" in shapes,
        kernel=first[2],
        last_kernel=shapes[f"encoder.layers.{last}.conv.weight"][2],
        residual_kernel=residual[2],
        residual_layers=(last - 2 - 1 - 2 * len(downs)) // len(downs),
        compress=residual[1] // residual[0],
        lstm_layers=len(layers),
        group_norm=chunked,
        chunk_length=48000 if chunked else 0,
        chunk_stride=47520 if chunked else 0,
    )


_MAY_BE_ZERO = {
    "causal",
    "shortcut",
    "lstm_layers",
    "residual_layers",
    "group_norm",
    "chunk_length",
    "chunk_stride",
}


def _pad_mode(mode: str) -> PadMode:
    if mode == "reflect":
        return "reflect"
    if mode == "constant":
        return "constant"
    raise ModelError(f"padding mode {mode!r} is not one EnCodec uses (reflect, constant)")


def to_transformers(config: EncodecConfig) -> dict[str, Any]:
    """transformers' configuration of an EnCodec: `from_transformers` read backwards."""
    bits = max(1, math.ceil(math.log2(max(2, config.codebook_size))))
    frame_rate = math.ceil(config.sample_rate / config.hop_length)
    return {
        "model_type": "encodec",
        "sampling_rate": config.sample_rate,
        "audio_channels": config.channels,
        "upsampling_ratios": list(config.ratios),
        "num_filters": config.filters,
        "hidden_size": config.dimension,
        "codebook_dim": config.dimension,
        "codebook_size": config.codebook_size,
        "target_bandwidths": [config.codebooks * frame_rate * bits / 1000],
        "use_causal_conv": config.causal,
        "use_conv_shortcut": config.shortcut,
        "kernel_size": config.kernel,
        "last_kernel_size": config.last_kernel,
        "residual_kernel_size": config.residual_kernel,
        "num_residual_layers": config.residual_layers,
        "dilation_growth_rate": config.dilation_growth,
        "compress": config.compress,
        "num_lstm_layers": config.lstm_layers,
        "pad_mode": config.pad_mode,
        "trim_right_ratio": config.trim_right_ratio,
        "norm_type": "time_group_norm" if config.group_norm else "weight_norm",
        "normalize": bool(config.chunk_length),
        "chunk_length_s": config.chunk_length / config.sample_rate or None,
        "overlap": 1 - config.chunk_stride / config.chunk_length if config.chunk_length else None,
    }

"""What an EnCodec is like: its configuration, read from each layout it is published in."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from audiogen_core.errors import ModelError
from audiogen_core.ops import PadMode


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
            if count < (0 if name in _MAY_BE_ZERO else 1):
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
    try:
        ratios = tuple(int(ratio) for ratio in config["upsampling_ratios"])
        rate, size = int(config["sampling_rate"]), int(config["codebook_size"])
        frame_rate = math.ceil(rate / max(1, math.prod(ratios)))
        bandwidths = [float(bandwidth) for bandwidth in config["target_bandwidths"]]
        bits = max(1, math.ceil(math.log2(max(2, size))))
        chunk = int(float(seconds) * rate) if seconds else 0
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
            group_norm=norm == "time_group_norm",
            chunk_length=chunk,
            chunk_stride=max(1, int((1 - float(config["overlap"])) * chunk)) if chunk else 0,
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
    """The configuration of an original EnCodec file, which carries none.

    Everything that varies in a family (widths, strides, codebooks) is a shape; what does not is the
    model's own: 24 kHz and causal, or, where the layers have norms, 48 kHz in chunks of one second of which
    a hundredth overlaps. Reflection and a shortcut are common. Raises ModelError for other files.
    """
    first = shapes.get("encoder.layers.0.conv.weight")
    lstm = next((name for name in shapes if name.startswith("encoder.") and ".lstm." in name), None)
    if first is None or lstm is None:
        raise ModelError(
            "not an original EnCodec file of the 24 kHz or 48 kHz family; "
            "for other models use the folder in transformers' layout"
        )
    chunked = "encoder.layers.0.norm.weight" in shapes
    last = int(lstm.split(".")[2]) + 2
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
    ratios = tuple(shape[2] // 2 for shape in reversed(downs))
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
_DECODER_ONLY = {"trim_right_ratio", "final_activation", "final_activation_params"}


def _pad_mode(mode: object) -> PadMode:
    if mode == "reflect":
        return "reflect"
    if mode == "constant":
        return "constant"
    raise ModelError(f"padding mode {mode!r} is not one EnCodec uses (reflect, constant)")

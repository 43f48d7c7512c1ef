"""WaveBeat's checkpoint -> the optional graph `beats.onnx`: configuration, network in torch, and graph.

Names of parameters are the original's (csteinmetz1/wavebeat).
Source: Steinmetz and Reiss 2021, "WaveBeat: End-to-end beat and downbeat tracking in the time domain",
arXiv 2110.01436.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import onnx
from audiogen_core import weights
from audiogen_core.errors import ModelError
from audiogen_core.files import atomic_path
from audiogen_core.weights import Drop, Network
from audiogen_onnx.session import Session
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[np.float32]

OPSET, IR_VERSION = 18, 10
TOLERANCE = 1e-4
"""How far the graph's probabilities may lie from torch's."""

LENGTHS = (1, 255, 256, 5_000, 70_001)
"""Samples of the clips on which the graph is compared with torch."""

_EPSILON = 1e-5  # of batch normalisation


@dataclass(frozen=True)
class WaveBeatConfig:
    """The shape of the network, from the settings in its checkpoint.

    blocks            each keeps every `stride`-th sample
    kernel_size       of the dilated convolutions, odd
    dilation_growth   block n is dilated by dilation_growth ** (n % stack_size)
    channel_width     of the first block; every further one has `channel_growth` more
    normalised        whether batch normalisation follows each convolution
    sample_rate       Hz of the sound it hears
    frame_rate        Hz of its curves
    """

    blocks: int
    kernel_size: int
    stride: int
    dilation_growth: int
    stack_size: int
    channel_width: int
    channel_growth: int
    normalised: bool
    sample_rate: int
    frame_rate: float

    @property
    def hop_length(self) -> int:
        """Samples per frame."""
        return int(self.stride**self.blocks)

    @property
    def reach(self) -> int:
        """How far a frame hears to either side, samples."""
        return sum(
            (self.kernel_size - 1) // 2 * self.dilation(index) * self.stride**index
            for index in range(self.blocks)
        )

    def dilation(self, index: int) -> int:
        return int(self.dilation_growth ** (index % self.stack_size))

    def widths(self, index: int) -> tuple[int, int]:
        """Channels into and out of a block; the first of the one after the last go to the output."""
        out = self.channel_width + index * self.channel_growth
        return (out - self.channel_growth if index else 1), out

    @classmethod
    def of(cls, settings: Mapping[str, Any], where: str) -> WaveBeatConfig:
        """The configuration in a checkpoint's settings. Raises ModelError when it is none of WaveBeat's."""
        problem = _problem(settings)
        if problem:
            raise ModelError(f"{where}: not a network of WaveBeat as published: {problem}")
        sizes = {ours: settings.get(theirs, default) for theirs, (ours, default) in _SIZES.items()}
        rate = settings["audio_sample_rate"]
        frame_rate = settings.get("target_sample_rate", rate / sizes["stride"] ** sizes["blocks"])
        normalised = settings.get("norm_type", "BatchNorm") is not None
        return cls(**sizes, normalised=normalised, sample_rate=rate, frame_rate=float(frame_rate))


_SIZES = {
    "nblocks": ("blocks", 10),
    "kernel_size": ("kernel_size", 3),
    "stride": ("stride", 2),
    "dilation_growth": ("dilation_growth", 8),
    "stack_size": ("stack_size", 4),
    "channel_width": ("channel_width", 32),
    "channel_growth": ("channel_growth", 1),
}
"""The original's names, ours, and the original's defaults."""


def _problem(settings: Mapping[str, Any]) -> str | None:
    """What is wrong with the settings of a checkpoint, or None."""
    fixed = {"ninputs": (1,), "noutputs": (2,), "act_type": ("PReLU",), "norm_type": ("BatchNorm", None)}
    for name, allowed in fixed.items():
        if settings.get(name, allowed[0]) not in allowed:
            return f"{name} is {settings[name]!r}, expected {allowed[0]!r}"
    for name, (_, default) in _SIZES.items():
        size = settings.get(name, default)
        if type(size) is not int or not 1 <= size <= 4096 or (name == "kernel_size" and size % 2 == 0):
            return f"{name} is {size!r}"
    rate = settings.get("audio_sample_rate")
    if type(rate) is not int or not 4_000 <= rate <= 200_000:
        return f"audio_sample_rate is {rate!r}"
    frame_rate = settings.get("target_sample_rate", 1)
    if not isinstance(frame_rate, int | float) or not 1 <= frame_rate <= rate:
        return f"target_sample_rate is {frame_rate!r}"
    return None


class Block(nn.Module):
    """A dilated convolution that keeps every `stride`-th sample, beside a plain one that does the same."""

    def __init__(self, config: WaveBeatConfig, index: int) -> None:
        super().__init__()
        into, out = config.widths(index)
        dilation = config.dilation(index)
        padding = (config.kernel_size - 1) * dilation // 2
        self.conv1 = nn.Conv1d(into, out, config.kernel_size, config.stride, padding, dilation)
        self.norm1 = nn.BatchNorm1d(out) if config.normalised else nn.Identity()
        self.act1 = nn.PReLU(out)
        self.res_conv = nn.Conv1d(into, out, 1, config.stride)
        self.res_norm = nn.BatchNorm1d(out) if config.normalised else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) -> (B, C', ceil(T / stride))."""
        y: Tensor = self.act1(self.norm1(self.conv1(x)))
        side: Tensor = self.res_norm(self.res_conv(x))
        return y + side


class WaveBeat(nn.Module):
    """Samples -> probabilities of a beat and of a downbeat in each frame."""

    def __init__(self, config: WaveBeatConfig) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(Block(config, index) for index in range(config.blocks))
        self.output = nn.Conv1d(config.widths(config.blocks)[0], 2, 1)

    def forward(self, audio: Tensor) -> Tensor:
        """(B, 1, T), largest magnitude 1 -> (B, 2, ceil(T / hop_length))."""
        x = audio
        for block in self.blocks:
            x = block(x)
        return torch.sigmoid(self.output(x))


def load(path: str | Path) -> WaveBeat:
    """The network of WaveBeat's checkpoint (`wavebeat.pth`, written by Lightning), ready to run.

    Raises ModelError when it is the checkpoint of something else, WeightsError when a tensor is missing, left
    over, misshapen or not finite, or the file holds anything but data.
    """
    settings = weights.setting(weights.read_checkpoint(path), "hyper_parameters")
    stored = weights.read_network(path, Network(r"blocks\.\d+\."))
    if not isinstance(settings, dict) or "blocks.0.conv1.weight" not in stored:
        raise ModelError(f"{path}: not a checkpoint of WaveBeat, such as VampNet's wavebeat.pth")
    config = WaveBeatConfig.of(settings, str(path))
    with torch.device("meta"):
        net = WaveBeat(config)
    state = net.state_dict()
    counters = {name: torch.tensor(0) for name in state if name.endswith("num_batches_tracked")}
    stored = stored.apply((Drop(r".*\.num_batches_tracked", "a count of training steps"),))
    tensors = stored.take_all(
        {name: tuple(values.shape) for name, values in state.items() if name not in counters}
    )
    stored.finish()
    net.load_state_dict(
        counters | {name: torch.from_numpy(values) for name, values in tensors.items()}, assign=True
    )
    return net.eval()


def export_beats(checkpoint: str | Path, path: str | Path, *, check: bool = True) -> Path:
    """Write the graph of a WaveBeat checkpoint: `audio` float32 (B, 1, samples) -> `beats` (B, 2, frames).

    Its outputs are the probabilities of a beat and of a downbeat; its metadata say what `vampnet.wavebeat`
    needs to know. The file appears whole or not at all. With `check` it is compared with torch first.

    Raises ModelError and WeightsError as `load` does, ModelError when the graph disagrees with torch.
    """
    net = load(checkpoint)
    model = _graph(net)
    onnx.checker.check_model(model)
    with atomic_path(path) as temporary:
        temporary.write_bytes(model.SerializeToString())
        if check:
            _compare(net, temporary)
    return Path(path)


def _graph(net: WaveBeat) -> Any:
    config, tensors = net.config, {name: values.numpy() for name, values in net.state_dict().items()}
    nodes: list[Any] = []
    stored: list[Any] = []

    def node(kind: str, output: str, *inputs: str | Array, **attributes: Any) -> str:
        names = []
        for position, value in enumerate(inputs):
            if not isinstance(value, str):
                stored.append(numpy_helper.from_array(value, f"{output}.{position}"))
            names.append(value if isinstance(value, str) else f"{output}.{position}")
        nodes.append(helper.make_node(kind, names, [output], name=output, **attributes))
        return output

    x = "audio"
    for index in range(config.blocks):
        name, dilation, strides = f"blocks.{index}", config.dilation(index), [config.stride]
        padding = (config.kernel_size - 1) * dilation // 2
        y = node(
            "Conv", f"{name}.conv1", x, *_folded(tensors, f"{name}.conv1", f"{name}.norm1"),
            strides=strides, pads=[padding, padding], dilations=[dilation],
        )  # fmt: skip
        y = node("PRelu", f"{name}.act1", y, tensors[f"{name}.act1.weight"][:, None])
        side = _folded(tensors, f"{name}.res_conv", f"{name}.res_norm")
        x = node("Add", name, y, node("Conv", f"{name}.res_conv", x, *side, strides=strides))
    x = node("Conv", "logits", x, tensors["output.weight"], tensors["output.bias"])
    node("Sigmoid", "beats", x)
    audio = helper.make_tensor_value_info("audio", TensorProto.FLOAT, ["batch", 1, "samples"])
    beats = helper.make_tensor_value_info("beats", TensorProto.FLOAT, ["batch", 2, "frames"])
    model = helper.make_model(
        helper.make_graph(nodes, "wavebeat", [audio], [beats], stored),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="audiogen-onnx",
    )
    facts = {
        "sample_rate": str(config.sample_rate),
        "frame_rate": repr(config.frame_rate),
        "hop_length": str(config.hop_length),
        "reach": str(math.ceil(config.reach / config.hop_length) * config.hop_length),
    }
    helper.set_model_props(model, facts)
    return model


def _folded(tensors: Mapping[str, NDArray[Any]], name: str, norm: str) -> tuple[Array, Array]:
    """Weight and bias of a convolution with the normalisation after it, if there is one, put in.

    Once trained, a batch normalisation is a scale and an offset for each channel, so that a convolution can
    take it in. In float64: the variance of a channel may be tiny.
    """
    weight, bias = (tensors[f"{name}.{part}"].astype(np.float64) for part in ("weight", "bias"))
    if f"{norm}.weight" in tensors:
        scale = tensors[f"{norm}.weight"] / np.sqrt(
            tensors[f"{norm}.running_var"].astype(np.float64) + _EPSILON
        )
        weight = weight * scale[:, None, None]
        bias = (bias - tensors[f"{norm}.running_mean"]) * scale + tensors[f"{norm}.bias"]
    return weight.astype(np.float32), bias.astype(np.float32)


def _compare(net: WaveBeat, path: Path) -> None:
    session, rng = Session(path), np.random.default_rng(0)
    for length in LENGTHS:
        audio = rng.uniform(-1, 1, (2, 1, length)).astype(np.float32)
        with torch.inference_mode():
            expected = net(torch.from_numpy(audio)).numpy()
        curves = session.run({"audio": audio})["beats"]
        if curves.shape != expected.shape or not float(np.abs(curves - expected).max()) <= TOLERANCE:
            raise ModelError(
                f"the graph of beats differs from torch at {length} samples; nothing was written"
            )

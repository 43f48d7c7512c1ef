"""WaveBeat's checkpoint -> the optional graph `beats.onnx`. Needs the extra [export]."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiogen_core import weights
from audiogen_core.errors import MissingDependency, ModelError
from audiogen_core.files import atomic_path
from audiogen_core.weights import Drop

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


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The configuration, and every parameter by the original's name."""

    config: WaveBeatConfig
    tensors: dict[str, Array]


def load(path: str | Path) -> Checkpoint:
    """WaveBeat's checkpoint (`wavebeat.pth`, written by Lightning), read without torch.

    Raises ModelError when it is the checkpoint of something else, WeightsError when a tensor is missing, left
    over, misshapen or not finite, or the file holds anything but data.
    """
    settings = weights.read_checkpoint(path).get("hyper_parameters")
    found = weights.read(path)
    if not isinstance(settings, dict) or "blocks.0.conv1.weight" not in found:
        raise ModelError(f"{path}: not a checkpoint of WaveBeat, such as VampNet's wavebeat.pth")
    config = WaveBeatConfig.of(settings, str(path))
    found = found.apply((Drop(r".*\.num_batches_tracked", "a count of training steps"),))
    tensors = found.take_all(_shapes(config))
    found.finish()
    return Checkpoint(config, tensors)


def _shapes(config: WaveBeatConfig) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for index in range(config.blocks):
        into, out = config.widths(index)
        name = f"blocks.{index}"
        shapes[f"{name}.conv1.weight"] = (out, into, config.kernel_size)
        shapes[f"{name}.res_conv.weight"] = (out, into, 1)
        norms = ("weight", "bias", "running_mean", "running_var") if config.normalised else ()
        vectors = ["conv1.bias", "res_conv.bias", "act1.weight"]
        vectors += [f"{norm}.{part}" for norm in ("norm1", "res_norm") for part in norms]
        shapes |= {f"{name}.{vector}": (out,) for vector in vectors}
    last = config.widths(config.blocks)[0]
    return shapes | {"output.weight": (2, last, 1), "output.bias": (2,)}


def export_beats(checkpoint: str | Path, path: str | Path, *, check: bool = True) -> Path:
    """Write the graph of a WaveBeat checkpoint: `audio` float32 (B, 1, samples) -> `beats` (B, 2, frames).

    Its outputs are the probabilities of a beat and of a downbeat; its metadata say what `wavebeat` needs to
    know. The file appears whole or not at all. With `check` it is compared with torch first.

    Raises ModelError and WeightsError as `load` does, ModelError when the graph disagrees with torch,
    MissingDependency without the extra [export].
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingDependency("onnx", 'pip install "audiogen-onnx[export]"') from error
    found = load(checkpoint)
    model = _graph(found)
    onnx.checker.check_model(model)
    with atomic_path(path) as temporary:
        temporary.write_bytes(model.SerializeToString())
        if check:
            _compare(found, temporary)
    return Path(path)


def folded(checkpoint: Checkpoint, name: str, norm: str) -> tuple[Array, Array]:
    """Weight and bias of a convolution with the normalisation after it (as it is once trained) put in."""

    def stored(key: str) -> NDArray[np.float64]:
        return checkpoint.tensors[key].astype(np.float64)

    weight, bias = stored(f"{name}.weight"), stored(f"{name}.bias")
    if checkpoint.config.normalised:
        scale = stored(f"{norm}.weight") / np.sqrt(stored(f"{norm}.running_var") + _EPSILON)
        weight = weight * scale[:, None, None]
        bias = (bias - stored(f"{norm}.running_mean")) * scale + stored(f"{norm}.bias")
    return weight.astype(np.float32), bias.astype(np.float32)


def _graph(checkpoint: Checkpoint) -> Any:
    from onnx import TensorProto, helper, numpy_helper

    config = checkpoint.config
    nodes: list[Any] = []
    tensors: list[Any] = []

    def node(kind: str, output: str, *inputs: str | Array, **attributes: Any) -> str:
        names = []
        for position, value in enumerate(inputs):
            if not isinstance(value, str):
                tensors.append(numpy_helper.from_array(value, f"{output}.{position}"))
            names.append(value if isinstance(value, str) else f"{output}.{position}")
        nodes.append(helper.make_node(kind, names, [output], name=output, **attributes))
        return output

    x = "audio"
    for index in range(config.blocks):
        name, dilation, strides = f"blocks.{index}", config.dilation(index), [config.stride]
        reach = (config.kernel_size - 1) * dilation // 2
        heard = node(
            "Conv", f"{name}.conv1", x, *folded(checkpoint, f"{name}.conv1", f"{name}.norm1"),
            strides=strides, pads=[reach, reach], dilations=[dilation],
        )  # fmt: skip
        heard = node("PRelu", f"{name}.act1", heard, checkpoint.tensors[f"{name}.act1.weight"][:, None])
        passed = folded(checkpoint, f"{name}.res_conv", f"{name}.res_norm")
        passed_on = node("Conv", f"{name}.res_conv", x, *passed, strides=strides)
        x = node("Add", name, heard, passed_on)
    x = node("Conv", "logits", x, checkpoint.tensors["output.weight"], checkpoint.tensors["output.bias"])
    node("Sigmoid", "beats", x)
    audio = helper.make_tensor_value_info("audio", TensorProto.FLOAT, ["batch", 1, "samples"])
    beats = helper.make_tensor_value_info("beats", TensorProto.FLOAT, ["batch", 2, "frames"])
    graph = helper.make_graph(nodes, "wavebeat", [audio], [beats], tensors)
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(
        graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="audiogen-onnx"
    )
    helper.set_model_props(model, facts(config))
    return model


def facts(config: WaveBeatConfig) -> dict[str, str]:
    """What the graph's metadata say."""
    reach = math.ceil(config.reach / config.hop_length) * config.hop_length
    return {
        "sample_rate": str(config.sample_rate),
        "frame_rate": repr(config.frame_rate),
        "hop_length": str(config.hop_length),
        "reach": str(reach),
    }


def _compare(checkpoint: Checkpoint, path: Path) -> None:
    import torch

    from audiogen_onnx.session import Session
    from audiogen_onnx.vampnet import wavebeat_model

    model, session, draw = wavebeat_model.build(checkpoint), Session(path), np.random.default_rng(0)
    for length in LENGTHS:
        audio = draw.uniform(-1, 1, (2, 1, length)).astype(np.float32)
        with torch.inference_mode():
            wanted = model(torch.from_numpy(audio)).numpy()
        made = session.run({"audio": audio})["beats"]
        if made.shape != wanted.shape or not float(np.abs(made - wanted).max()) <= TOLERANCE:
            raise ModelError(
                f"the graph of beats differs from torch at {length} samples; nothing was written"
            )

"""WaveBeat's network in torch, plainly: strided convolutions from samples to two curves, beats and downbeats.

What the exported graph is compared with. Names of parameters are the original's (csteinmetz1/wavebeat).
Source: Steinmetz and Reiss 2021, "WaveBeat: End-to-end beat and downbeat tracking in the time domain",
arXiv 2110.01436.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from audiogen_onnx.vampnet.wavebeat_export import Checkpoint, WaveBeatConfig


class Block(nn.Module):
    """A dilated convolution that keeps every `stride`-th sample, beside a plain one that does the same."""

    def __init__(self, config: WaveBeatConfig, index: int) -> None:
        super().__init__()
        into, out = config.widths(index)
        dilation = config.dilation(index)
        reach = (config.kernel_size - 1) * dilation // 2
        self.conv1 = nn.Conv1d(into, out, config.kernel_size, config.stride, reach, dilation)
        self.norm1 = nn.BatchNorm1d(out) if config.normalised else nn.Identity()
        self.act1 = nn.PReLU(out)
        self.res_conv = nn.Conv1d(into, out, 1, config.stride)
        self.res_norm = nn.BatchNorm1d(out) if config.normalised else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) -> (B, C', ceil(T / stride))."""
        heard: Tensor = self.act1(self.norm1(self.conv1(x)))
        passed: Tensor = self.res_norm(self.res_conv(x))
        return heard + passed


class WaveBeat(nn.Module):
    """Samples -> probabilities of a beat and of a downbeat in each frame."""

    def __init__(self, config: WaveBeatConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(config, index) for index in range(config.blocks))
        self.output = nn.Conv1d(config.widths(config.blocks)[0], 2, 1)

    def forward(self, audio: Tensor) -> Tensor:
        """(B, 1, T), largest magnitude 1 -> (B, 2, ceil(T / hop_length))."""
        x = audio
        for block in self.blocks:
            x = block(x)
        return torch.sigmoid(self.output(x))


def build(checkpoint: Checkpoint) -> WaveBeat:
    """The network of a checkpoint, ready to run."""
    with torch.device("meta"):
        model = WaveBeat(checkpoint.config)
    state = {name: torch.from_numpy(values) for name, values in checkpoint.tensors.items()}
    counters = (name for name in model.state_dict() if name.endswith("num_batches_tracked"))  # of training
    model.load_state_dict(state | {name: torch.tensor(0) for name in counters}, assign=True)
    return model.eval()

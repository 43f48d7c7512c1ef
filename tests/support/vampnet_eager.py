"""Our torch network with the arithmetic the original spells out, for timing: same result, more passes.

The original fills the scores of padding (there is none) in every layer, writes its GELU out in elementary
operations, and undoes the weight norm of its classifier at every call.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from audiogen_onnx.exporter.model import FeedForward, RelativeAttention, VampNet


def spelled_out(net: VampNet) -> VampNet:
    """The network with its parts exchanged in place; it keeps its weights."""
    for layer in net.layers:
        layer.attention.__class__ = _Attention
        layer.feed_forward.__class__ = _FeedForward
    direction = net.classifier.weight
    net.classifier = _Classifier(direction, direction.norm(dim=1, keepdim=True), net.classifier.bias)
    return net


class _Attention(RelativeAttention):
    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        present = torch.ones(x.shape[:2], dtype=torch.bool)
        q, k, v = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        scores = scores + bias
        scores = scores.masked_fill(~present[:, None, None, :], -1e9)
        return self.output((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


class _FeedForward(FeedForward):
    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.widen(x).chunk(2, dim=-1)
        inner = math.sqrt(2 / math.pi) * (gate + 0.044715 * torch.pow(gate, 3.0))
        return self.narrow(value * (0.5 * gate * (1.0 + torch.tanh(inner))))


class _Classifier(nn.Module):
    def __init__(self, direction: Tensor, gain: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.direction, self.gain, self.bias = direction, gain, bias

    def forward(self, x: Tensor) -> Tensor:
        weight = self.gain * self.direction / self.direction.norm(dim=1, keepdim=True)
        return nn.functional.linear(x, weight, self.bias)

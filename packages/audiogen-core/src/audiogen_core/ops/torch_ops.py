"""The verbs in torch, for CPU, CUDA and MPS. Signals are float32 (B, C, T)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from audiogen_core.errors import OptionError
from audiogen_core.ops.protocol import Attention, Float, Lstm, LstmLayer, PadMode


class TorchOps:
    """Every verb is one or two torch calls, so codecs written over it trace and export."""

    name = "torch"

    def __init__(self, device: str | torch.device = "cpu") -> None:
        if device == "gpu":
            device = "mps" if torch.backends.mps.is_available() else "cuda"
        try:
            self.device = torch.device(device)
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            raise OptionError(f"torch cannot use the device {str(device)!r} here ({error})") from error
        # On a CPU short chunks keep what a layer makes near the cache; elsewhere launches must pay off.
        self.chunk_seconds = 2.0 if self.device.type == "cpu" else 30.0

    def signal(self, array: Float) -> Tensor:
        return torch.tensor(array, dtype=torch.float32, device=self.device)

    def numpy(self, signal: Tensor) -> Float:
        return np.asarray(signal.detach().cpu().numpy(), dtype=np.float32)

    def indices(self, array: NDArray[np.integer[Any]]) -> Tensor:
        return torch.tensor(array, dtype=torch.int64, device=self.device)

    def indices_numpy(self, indices: Tensor) -> NDArray[np.int64]:
        return np.asarray(indices.cpu().numpy(), dtype=np.int64)

    def length(self, signal: Tensor) -> int:
        return signal.shape[-1]

    def vector(self, array: Float) -> Tensor:
        return self.signal(np.ascontiguousarray(array).reshape(-1))  # (C,)

    # torch's own layouts, so nothing is turned: (out, in, k), (C, 1, k) and (in, out, k).
    def conv_weight(self, array: Float) -> Tensor:
        return self.signal(np.ascontiguousarray(array))

    depthwise_weight = conv_weight
    conv_transpose_weight = conv_weight

    def codebook(self, array: Float) -> tuple[Tensor, Tensor]:
        book = self.signal(np.ascontiguousarray(array))
        return book, 0.5 * (book * book).sum(dim=1)  # (N, D), (N,)

    def lstm(self, layers: Sequence[LstmLayer]) -> Lstm:
        return _TorchLstm(layers, self)

    def pad(self, x: Tensor, left: int, right: int, mode: PadMode = "constant") -> Tensor:
        return F.pad(x, (left, right), mode=mode)

    def trim(self, x: Tensor, left: int, right: int) -> Tensor:
        return x[..., left : x.shape[-1] - right]

    def concat(self, parts: Sequence[Tensor]) -> Tensor:
        return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=2)

    def stack(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(parts), dim=1)

    def channels(self, x: Tensor, start: int, stop: int) -> Tensor:
        return x[:, start:stop]

    def fold(self, x: Tensor, size: int) -> Tensor:
        batch, channels, _ = x.shape
        return x.reshape(batch, channels, -1, size).permute(0, 3, 1, 2).flatten(1, 2)

    def unfold(self, x: Tensor, size: int) -> Tensor:
        batch, _, steps = x.shape
        return x.reshape(batch, size, -1, steps).permute(0, 2, 3, 1).flatten(2, 3)

    def spread(self, vector: Tensor, x: Tensor) -> Tensor:
        return vector[:, None].expand(x.shape[0], -1, x.shape[2])

    def conv(
        self, x: Tensor, weight: Tensor, bias: Tensor | None = None, *, stride: int = 1, dilation: int = 1
    ) -> Tensor:
        return F.conv1d(x, weight, bias, stride=stride, dilation=dilation)

    def depthwise_conv(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.conv1d(x, weight, bias, groups=x.shape[1])

    def conv_transpose(self, x: Tensor, weight: Tensor, bias: Tensor | None = None, *, stride: int) -> Tensor:
        return F.conv_transpose1d(x, weight, bias, stride=stride)

    def spectrum(self, x: Tensor, window: NDArray[np.float64], hop: int) -> Tensor:
        # In float64, for the sake of quiet bins beside loud ones; Metal has none.
        dtype = torch.float32 if self.device.type == "mps" else torch.float64
        frames = x[:, 0].unfold(-1, len(window), hop) * torch.tensor(window, dtype=dtype, device=self.device)
        y = torch.fft.rfft(frames)  # (B, F, bins)
        return torch.cat([y.real, y.imag], dim=2).transpose(1, 2).to(x.dtype)

    def elu(self, x: Tensor) -> Tensor:
        return F.elu(x)

    def gelu(self, x: Tensor) -> Tensor:
        return F.gelu(x)

    def tanh(self, x: Tensor) -> Tensor:
        return torch.tanh(x)

    def power(self, x: Tensor, exponent: float) -> Tensor:
        return torch.pow(x, exponent)

    def snake(self, x: Tensor, alpha: Tensor, beta: Tensor | None = None) -> Tensor:
        wave = torch.sin(x * alpha[:, None])
        return x + wave * wave / ((alpha if beta is None else beta) + 1e-9)[:, None]

    def silu(self, x: Tensor) -> Tensor:
        return F.silu(x)

    def sine(self, x: Tensor, rate: float) -> Tensor:
        return torch.sin(rate * x)

    def dynamic_tanh(self, x: Tensor, alpha: float, gamma: Tensor, beta: Tensor) -> Tensor:
        return torch.tanh(alpha * x) * gamma[:, None] + beta[:, None]

    def scale(self, x: Tensor, factor: Tensor) -> Tensor:
        return x * factor[:, None]

    def group_norm(self, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        return torch.group_norm(x, 1, weight, bias, eps)  # unlike F.group_norm, of one step of time too

    def layer_norm(self, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        return F.layer_norm(x.transpose(1, 2), weight.shape, weight, bias, eps).transpose(1, 2)

    def unit(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=1)

    def attention(self, query: Tensor, key: Tensor, value: Tensor, how: Attention) -> Tensor:
        batch, _, length = query.shape
        size, missing = how.blocks(length)
        cosine, sine = (self.signal(table.T) for table in how.rotary(length))  # (turned / 2, T)

        def headed(x: Tensor, turns: bool, around: tuple[int, int]) -> Tensor:
            """(B, H, blocks, steps of a block and those around it, D)."""
            x = x.reshape(batch, how.heads, -1, length)  # (B, H, D, T)
            if turns:
                first, second, rest = x.tensor_split((len(cosine), 2 * len(cosine)), dim=2)
                x = torch.cat([first * cosine - second * sine, second * cosine + first * sine, rest], dim=2)
            x = F.pad(x, (around[0], around[1] + missing))
            return x.unfold(-1, around[0] + size + around[1], size).permute(0, 1, 3, 4, 2)

        hidden = how.hidden(length)
        y = F.scaled_dot_product_attention(
            headed(query, True, (0, 0)),
            headed(key, True, how.window),
            headed(value, False, how.window),
            attn_mask=None if hidden is None else self.signal(hidden),
        )
        return y.flatten(2, 3).transpose(2, 3).flatten(1, 2)[..., :length]

    def nearest(self, x: Tensor, codebook: tuple[Tensor, Tensor]) -> Tensor:
        book, half_square = codebook
        return (torch.matmul(x.transpose(1, 2), book.t()) - half_square).argmax(dim=-1)  # (B, F)

    def lookup(self, indices: Tensor, codebook: tuple[Tensor, Tensor]) -> Tensor:
        return F.embedding(indices, codebook[0]).transpose(1, 2)  # (B, D, F)


class _TorchLstm:
    """torch's own LSTM on adopted weights; the state is carried from chunk to chunk."""

    def __init__(self, layers: Sequence[LstmLayer], ops: TorchOps) -> None:
        size = layers[0].weight_hh.shape[1]
        self.module = torch.nn.LSTM(
            layers[0].weight_ih.shape[1], size, num_layers=len(layers), device=ops.device
        )
        with torch.no_grad():
            for i, layer in enumerate(layers):
                getattr(self.module, f"weight_ih_l{i}").copy_(ops.conv_weight(layer.weight_ih))
                getattr(self.module, f"weight_hh_l{i}").copy_(ops.conv_weight(layer.weight_hh))
                getattr(self.module, f"bias_ih_l{i}").copy_(ops.conv_weight(layer.bias))
                getattr(self.module, f"bias_hh_l{i}").zero_()  # already in the other bias
        self.module.eval().requires_grad_(False)
        self.module.flatten_parameters()

    def __call__(self, x: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Any]:
        y, after = self.module(x.permute(2, 0, 1), state)  # torch's LSTM goes over (T, B, C)
        return y.permute(1, 2, 0), after

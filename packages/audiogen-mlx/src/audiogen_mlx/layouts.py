"""How the weights of convolutions lie in memory, which depends on the way a device runs them best."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import numpy as np

from audiogen_core.errors import OptionError
from audiogen_core.ops import Float


class _Weight:
    """A weight in the layout of the one layer it belongs to, made at its first use; the rest is let go."""

    def __init__(self, array: Float) -> None:
        self.shape: tuple[int, int, int] = (int(array.shape[0]), int(array.shape[1]), int(array.shape[2]))
        self.kernel = self.shape[2]
        self._array: Float | None = np.asarray(array, dtype=np.float32)
        self._laid_out: tuple[str, list[mx.array]] | None = None

    def _layout(self, use: str, make: Callable[[Float], list[Float]]) -> list[mx.array]:
        if self._laid_out is None:
            assert self._array is not None
            parts = [mx.array(np.ascontiguousarray(part)) for part in make(self._array)]
            self._laid_out, self._array = (use, parts), None
        if self._laid_out[0] != use:
            raise OptionError(f"this weight is laid out for {self._laid_out[0]} and cannot serve {use}")
        return self._laid_out[1]


class ConvWeight(_Weight):
    """The weight of a convolution, from (out, in, k)."""

    @property
    def plain(self) -> mx.array:
        """(out, k, in), as mlx has it."""
        return self._layout("mlx's convolution", lambda array: [array.transpose(0, 2, 1)])[0]

    def suits_taps(self, stride: int, dilation: int) -> bool:
        """Whether the products with all taps make fewer numbers than the input laid out for each tap."""
        outputs, inputs, kernel = self.shape
        if stride == 1:
            return kernel == 1 or outputs <= inputs
        return dilation == 1 and kernel % stride == 0 and outputs <= stride * inputs

    def taps(self, stride: int) -> list[mx.array]:
        """(stride * in, out) for each tap: what `stride` neighbouring steps add to an output."""
        outputs, inputs, kernel = self.shape

        def make(array: Float) -> list[Float]:
            folded = array.reshape(outputs, inputs, kernel // stride, stride).transpose(2, 3, 1, 0)
            return list(folded.reshape(-1, stride * inputs, outputs))

        return self._layout(f"taps of stride {stride}", make)


class TransposeWeight(_Weight):
    """The weight of a transposed convolution, from (in, out, k)."""

    def folded(self, stride: int) -> mx.array:
        """(stride * out, overlap, in): row r * out + o makes step r of output o in every group of steps."""
        inputs, outputs, kernel = self.shape
        overlap = -(-kernel // stride)  # how many inputs reach one output

        def make(array: Float) -> list[Float]:
            taps = np.zeros((inputs, outputs, overlap * stride), np.float32)
            taps[..., :kernel] = array
            newest_last = taps.reshape(inputs, outputs, overlap, stride)[:, :, ::-1]
            return [newest_last.transpose(3, 1, 2, 0).reshape(stride * outputs, overlap, inputs)]

        return self._layout(f"a transposed convolution of stride {stride}", make)[0]

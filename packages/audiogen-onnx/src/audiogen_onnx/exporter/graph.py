"""Graphs written straight from tensors: no tracing, no copy in memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from onnx.external_data_helper import set_external_data

import onnx
from audiogen_onnx.exporter import functions
from onnx import TensorProto, helper

IR_VERSION = 10
"""Of the ONNX file format: the oldest that knows the 4-bit numbers of int4 weights."""

PAGE = 4096
"""Large tensors start at multiples of this in their file, so that they can be mapped into memory."""

_INSIDE = 1024
"""Tensors of so few bytes lie in the graph itself."""

CONTRIB = "com.microsoft"
"""The domain of onnxruntime's own operators."""

CONTRIBUTED = ("GroupQueryAttention", "MatMulNBits")


@dataclass(eq=False)
class GraphWriter:
    """Nodes in order, and tensors that go to the data file as they come.

    data       the open file of weights
    data_name  what the graph calls it
    """

    data: BinaryIO
    data_name: str
    nodes: list[Any] = field(default_factory=list)
    tensors: list[Any] = field(default_factory=list)

    def tensor(self, name: str, values: NDArray[Any]) -> str:
        """Store a tensor. Returns its name."""
        kind = helper.np_dtype_to_tensor_dtype(values.dtype)
        little = values.astype(values.dtype.newbyteorder("<"), copy=False)  # ONNX files are little-endian
        return self.packed(name, kind, values.shape, little.tobytes())

    def packed(self, name: str, kind: int, shape: Sequence[int], raw: bytes) -> str:
        """Store a tensor given as the bytes ONNX keeps of it. Returns its name."""
        tensor = TensorProto(name=name, data_type=kind, dims=shape, raw_data=raw)
        if len(raw) > _INSIDE:
            self.data.write(b"\0" * (-self.data.tell() % PAGE))
            set_external_data(tensor, self.data_name, self.data.tell(), len(raw))
            tensor.ClearField("raw_data")
            self.data.write(raw)
        self.tensors.append(tensor)
        return name

    def node(self, kind: str, inputs: Iterable[str], output: str, *more: str, **attributes: Any) -> str:
        """Add an operator, or a function of ours. Returns its first output, after which nodes are named."""
        domain = functions.DOMAIN if kind in functions.NAMES else CONTRIB if kind in CONTRIBUTED else ""
        self.nodes.append(
            helper.make_node(kind, list(inputs), [output, *more], name=output, domain=domain, **attributes)
        )
        return output

    def product(self, x: str, name: str, weight: NDArray[np.float32]) -> str:
        """x @ weight, the weight (outputs, inputs) as torch keeps it."""
        return self.node("MatMul", [x, self.tensor(f"{name}.weight", weight.T)], name)


def save(model: Any, path: Path) -> None:
    """Write a model whose tensors lie where it says already; onnx's checker refuses an invalid one."""
    path.write_bytes(model.SerializeToString())
    onnx.checker.check_model(path)

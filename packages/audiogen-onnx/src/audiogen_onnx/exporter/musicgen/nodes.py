"""The nodes that the graphs of a MusicGen are written in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiogen_core.ops import Float
from audiogen_onnx.exporter.functions import OPSET
from audiogen_onnx.exporter.graph import CONTRIB, IR_VERSION, GraphWriter, save
from audiogen_onnx.exporter.musicgen.numbers import BITS, BLOCK, blocks, packed, whole_rows
from audiogen_onnx.products import half
from onnx import TensorProto, helper

Shape = Sequence[str | int]
Ends = Mapping[str, tuple[int, Shape]]
"""Name -> type and shape."""

_LARGE = 1 << 12  # numbers of a matrix from which on it matters how it is stored

FLOAT, INT64, INT32, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL


@dataclass(eq=False)
class Nodes(GraphWriter):
    """A graph in the making, whose products have weights of a dtype.

    level  MatMulNBits' accuracy level: 4 rounds activations to 8 bits too, 0 leaves them
    """

    dtype: str = "float32"
    level: int = 0

    def constant(self, values: NDArray[Any] | Sequence[int] | int | np.floating[Any]) -> str:
        """A small tensor, stored once."""
        array = np.asarray(values)
        array = array.astype(np.int64) if array.dtype.kind == "i" else array
        name = f"constant.{array.dtype}.{array.shape}.{array.tolist()}".replace(" ", "")
        return name if any(tensor.name == name for tensor in self.tensors) else self.tensor(name, array)

    def product(self, x: str, name: str, weight: Float, size: int = BLOCK) -> str:
        """x @ weight.T, the weight (outputs, inputs); `size` of the blocks that share a scale."""
        if self.dtype == "float16":
            small = self.tensor(f"{name}.half", half(weight, name).T)
            return self.node("MatMul", [x, self.node("Cast", [small], f"{name}.weight", to=FLOAT)], name)
        if self.dtype not in BITS:
            return self.node("MatMul", [x, self.matrix(f"{name}.weight", weight, turned=True)], name)
        bits, (outputs, inputs) = BITS[self.dtype], weight.shape
        made = blocks(weight, bits, size)
        parts = [
            x,
            self.tensor(f"{name}.whole", packed(made.whole, bits)),
            self.tensor(f"{name}.scale", made.scale.reshape(-1)),
        ]
        if bits == 4:
            parts.append(self.tensor(f"{name}.zero", packed(made.zero, bits).reshape(-1)))
        facts = {"K": inputs, "N": outputs, "bits": bits, "block_size": size, "accuracy_level": self.level}
        return self.node("MatMulNBits", parts, name, **facts)

    def matrix(self, name: str, values: Float, *, turned: bool = False) -> str:
        """A matrix in float32; whole numbers by rows are stored as these, which changes nothing."""
        rows = whole_rows(values) if values.size > _LARGE else None
        if rows is None:
            return self.tensor(name, values.T if turned else values)
        whole, scale = rows
        stored = self.tensor(f"{name}.whole", whole.T if turned else whole)
        floats = self.node("Cast", [stored], f"{name}.float", to=FLOAT)
        scales = self.tensor(f"{name}.scale", scale if turned else scale[:, None])
        return self.node("Mul", [floats, scales], name)

    def linear(self, x: str, name: str, weight: Float, bias: Float) -> str:
        """x @ weight.T + bias."""
        y = self.product(x, f"{name}.product", weight)
        return self.node("Add", [y, self.tensor(f"{name}.bias", bias)], name)

    def rows(self, name: str, table: Float, indices: str) -> str:
        """Rows of a table, which is stored as float16 where weights are made smaller."""
        if self.dtype == "float32":
            return self.node("Gather", [self.matrix(f"{name}.table", table), indices], name, axis=0)
        small = self.tensor(f"{name}.table", half(table, name))
        found = self.node("Gather", [small, indices], f"{name}.half", axis=0)
        return self.node("Cast", [found], name, to=FLOAT)

    def layer_norm(self, x: str, name: str, weight: Float, bias: Float, eps: float) -> str:
        parts = [x, self.tensor(f"{name}.weight", weight), self.tensor(f"{name}.bias", bias)]
        return self.node("LayerNormalization", parts, name, axis=-1, epsilon=eps)

    def rms_norm(self, x: str, name: str, weight: Float, eps: float) -> str:
        square = self.node("Mul", [x, x], f"{name}.square")
        mean = self.node("ReduceMean", [square, self.constant([-1])], f"{name}.mean")
        mean = self.node("Add", [mean, self.constant(np.float32(eps))], f"{name}.mean_eps")
        scaled = self.node("Div", [x, self.node("Sqrt", [mean], f"{name}.root")], f"{name}.scaled")
        return self.node("Mul", [scaled, self.tensor(f"{name}.weight", weight)], name)

    def heads(self, x: str, name: str, heads: int, *, turned: bool = False) -> str:
        """(B, L, H * D) -> (B, H, L, D), or (B, H, D, L) when turned."""
        split = self.node("Reshape", [x, self.constant([0, 0, heads, -1])], f"{name}.split")
        return self.node("Transpose", [split], name, perm=[0, 2, 3, 1] if turned else [0, 2, 1, 3])

    def attend(self, query: str, keys: str, values: str, name: str, bias: str | None = None) -> str:
        """Attention of all to all: (B, H, L, D), (B, H, D, M) and (B, H, M, D) -> (B, L, H * D). No scale."""
        scores = self.node("MatMul", [query, keys], f"{name}.scores")
        if bias is not None:
            scores = self.node("Add", [scores, bias], f"{name}.biased")
        shares = self.node("Softmax", [scores], f"{name}.shares", axis=-1)
        heard = self.node("MatMul", [shares, values], f"{name}.heard")
        turned = self.node("Transpose", [heard], f"{name}.turned", perm=[0, 2, 1, 3])
        return self.node("Reshape", [turned, self.constant([0, 0, -1])], name)

    def activate(self, x: str, name: str, activation: str) -> str:
        """The activation that a configuration names."""
        if activation == "relu":
            return self.node("Relu", [x], name)
        if activation == "silu":
            return self.node("Mul", [x, self.node("Sigmoid", [x], f"{name}.gate")], name)
        return self.node("Gelu", [x], name, approximate="tanh" if activation == "gelu_new" else "none")


@contextmanager
def graph(path: Path, inputs: Ends, outputs: Ends, dtype: str, level: int = 0) -> Iterator[Nodes]:
    """A graph that is written to a path, and its weights beside it as `NAME.onnx.data`."""
    name = f"{path.name}.data"
    with path.with_name(name).open("wb") as data:
        nodes = Nodes(data, name, dtype=dtype, level=level)
        yield nodes
    model = helper.make_model(
        helper.make_graph(nodes.nodes, path.stem, _infos(inputs), _infos(outputs), nodes.tensors),
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, 1)],
        ir_version=IR_VERSION,
        producer_name="audiogen-onnx",
    )
    save(model, path)


def _infos(ends: Ends) -> list[Any]:
    return [helper.make_tensor_value_info(name, kind, list(shape)) for name, (kind, shape) in ends.items()]

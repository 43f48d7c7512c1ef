"""Smaller and faster copies of an exported folder. Standard operators only.

float16  weights stored in half the bytes; arithmetic stays float32, so speed and sound hardly change
int8     products in whole numbers: a scale for each output channel, activations scaled as they come. The
         fastest on processors with int8 dot products (VNNI). Weights use 7 of the 8 bits, since processors
         without them add pairs of products in 16 bits, which would overflow
int4     weights in blocks of 32 with a scale and a zero point each, the classifier in 8 bits as above.
         The smallest

The encoder stays float32 in all of them, since codes are choices between near neighbours. What is large and
no product is stored as float16 in all of them: the decoder's convolutions gain nothing from whole numbers,
the codec's vectors lose nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import onnx
from audiogen_core.errors import OptionError
from audiogen_onnx import products
from audiogen_onnx.exporter import step
from audiogen_onnx.exporter.graph import GraphWriter, save
from audiogen_onnx.manifest import DTYPES, NETWORKS, Graph, Manifest
from audiogen_onnx.products import BLOCK
from audiogen_onnx.tensors import nibbles
from onnx import TensorProto, helper, numpy_helper

LARGE = 1 << 16
"""Numbers of a tensor that is stored as float16 wherever weights are made smaller."""

CLASSIFIER = "classifier"


def convert(source: Path, target: Path, dtype: str) -> Manifest:
    """As `export.quantize`, into a folder that exists."""
    if dtype not in DTYPES[1:]:
        raise OptionError(f"dtype must be one of {', '.join(DTYPES[1:])}; got {dtype!r}")
    manifest = Manifest.load(source, verify=True)
    if manifest.dtype != "float32":
        raise OptionError(f"{source}: is {manifest.dtype} already; quantise the float32 folder")
    graphs = dict(manifest.graphs)
    for name in ("coarse", "fine"):
        path = target / graphs[name].graph.file
        quantize_network(source / path.name, path, dtype)
        graphs[name] = Graph.of(path)
        step_path = target / graphs[f"{name}_step"].graph.file
        step.write(path, step_path)
        graphs[f"{name}_step"] = Graph.of(step_path, network=path)
    changed = set(NETWORKS)
    if manifest.has_codec:
        decoder = target / graphs["decoder"].graph.file
        _rewrite(source / decoder.name, decoder, half=BLOCK)
        graphs["decoder"] = Graph.of(decoder)
        changed.add("decoder")
    kept = (stored for name, graph in graphs.items() if name not in changed for stored in graph.files)
    for stored in (*kept, *manifest.beside):
        shutil.copyfile(source / stored.file, target / stored.file)
    written = replace(manifest, dtype=dtype, graphs=graphs)
    written.save(target)
    return written


def quantize_network(source: Path, target: Path, dtype: str) -> None:
    """Write a smaller copy of one network's graph, and its weights beside it."""
    _rewrite(source, target, _PRODUCTS.get(dtype), half=BLOCK if dtype == "float16" else LARGE)


@dataclass(eq=False)
class _Rewrite:
    """A graph being copied: nodes and tensors go to the writer, some of them changed."""

    source: Path
    writer: GraphWriter
    tensors: dict[str, Any]
    scaled: dict[str, list[str]] = field(default_factory=dict)
    """Activation -> its whole numbers, scale and zero point, so that products share them."""

    def values(self, name: str) -> NDArray[Any]:
        """A stored tensor, read when it is needed."""
        return numpy_helper.to_array(self.tensors[name], str(self.source.parent))

    def is_weight(self, node: Any) -> bool:
        """Whether a node multiplies by a stored matrix."""
        return node.op_type == "MatMul" and node.input[1] in self.tensors


Product = Callable[[_Rewrite, Any], None]
"""Writes a product by a stored matrix in another form."""


def _rewrite(source: Path, target: Path, product: Product | None = None, *, half: int) -> None:
    """Copy a graph: products through `product`, other tensors of `half` numbers or more as float16."""
    model = onnx.load(source, load_external_data=False)
    name = f"{target.name}.data"
    with target.with_name(name).open("wb") as data:
        writer = GraphWriter(data, name)
        tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        rewrite, kept = _Rewrite(source, writer, tensors), set[str]()
        for node in model.graph.node:
            if product is not None and rewrite.is_weight(node):
                product(rewrite, node)
                continue
            for used in node.input:
                if used in tensors and used not in kept:
                    kept.add(used)
                    _keep(rewrite, used, half)
            writer.nodes.append(node)
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(writer.nodes)
    model.graph.initializer.extend(writer.tensors)
    save(model, target)


def _keep(rewrite: _Rewrite, name: str, half: int) -> None:
    """Copy a tensor; of `half` numbers or more, as float16, made float32 again when a session is opened."""
    values = rewrite.values(name)
    if values.dtype != np.float32 or values.size < half:
        rewrite.writer.tensor(name, values)
        return
    small = products.half(values, f"{rewrite.source}: {name}")
    stored = rewrite.writer.tensor(f"{name}.half", small)
    rewrite.writer.node("Cast", [stored], name, to=TensorProto.FLOAT)


def _int8(rewrite: _Rewrite, node: Any) -> None:
    """activation * weight as whole numbers, a scale for each column of the weight."""
    name, writer = node.output[0], rewrite.writer
    whole, scale = products.int8(rewrite.values(node.input[1]))
    activation = node.input[0]
    if activation not in rewrite.scaled:
        parts = [f"{activation}.{part}" for part in ("whole", "scale", "zero")]
        writer.nodes.append(helper.make_node("DynamicQuantizeLinear", [activation], parts, name=parts[0]))
        rewrite.scaled[activation] = parts
    numbers, activation_scale, zero = rewrite.scaled[activation]
    stored = writer.tensor(f"{name}.weight.int8", whole)
    summed = writer.node("MatMulInteger", [numbers, stored, zero], f"{name}.sum")
    summed = writer.node("Cast", [summed], f"{name}.float", to=TensorProto.FLOAT)
    both = writer.node(
        "Mul", [activation_scale, writer.tensor(f"{name}.weight.scale", scale)], f"{name}.scale"
    )
    writer.node("Mul", [summed, both], name)


def _int4(rewrite: _Rewrite, node: Any) -> None:
    """activation * weight, the weight unpacked from blocks of 4-bit numbers (onnxruntime joins the two)."""
    name, writer = node.output[0], rewrite.writer
    weight = rewrite.values(node.input[1])
    if name == CLASSIFIER or len(weight) % BLOCK:
        _int8(rewrite, node)
        return
    whole, scale, zero = products.int4(weight)
    stored = [
        writer.packed(f"{name}.weight.int4", TensorProto.UINT4, weight.shape, nibbles(whole).tobytes()),
        writer.tensor(f"{name}.weight.scale", scale),
        writer.packed(f"{name}.weight.zero", TensorProto.UINT4, zero.shape, nibbles(zero).tobytes()),
    ]
    unpacked = writer.node("DequantizeLinear", stored, f"{name}.weight", axis=0, block_size=BLOCK)
    writer.node("MatMul", [node.input[0], unpacked], name)


_PRODUCTS: dict[str, Product] = {"int8": _int8, "int4": _int4}

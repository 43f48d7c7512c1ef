"""The tensors of a graph: read where they lie, and others put in their place when a session is made."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiogen_core.errors import ManifestError
from audiogen_core.formats.stored import FileBytes, checked_shape, shorten
from audiogen_onnx.graph_file import Tensor, check_beside, read_graph, tensors

UINT4 = 21
"""onnx's number of its type of whole numbers below 16, two of which lie in a byte: here uint8."""

_KINDS = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 10: "float16", UINT4: "uint8"}


class Tensors(Mapping[str, NDArray[Any]]):
    """The initialisers of a graph by name, of the shapes the graph says; read when they are asked for.

    path   of the graph; its files lie beside it
    graph  its bytes, which were checked

    Reading one raises ManifestError for a tensor whose numbers are not those of its shape, or of a kind that
    no graph here has; WeightsError for a file that fails.
    """

    def __init__(self, path: Path, graph: bytes) -> None:
        self.path, self._graph = path, bytearray(graph)
        self._stored = tensors(path, graph)

    @classmethod
    def open(cls, path: Path) -> Tensors:
        """Of a file. Raises ManifestError when it, or what lies beside it, is damaged or elsewhere."""
        graph = read_graph(path)
        check_beside(path, graph)
        return cls(path, graph)

    def __getitem__(self, name: str) -> NDArray[Any]:
        tensor = self._stored[name]
        count, size = self._size(name, tensor)
        if tensor.file:
            place = FileBytes(self.path.with_name(tensor.file))
            values = place.array(tensor.start, size, "uint8")
        else:
            values = np.frombuffer(self._graph, np.uint8, size, tensor.start)
        if tensor.kind == UINT4:
            halves = np.stack([values & 15, values >> 4], axis=-1).reshape(-1)
            return halves[:count].reshape(tensor.shape)
        return values.view(np.dtype(_KINDS[tensor.kind]).newbyteorder("<")).reshape(tensor.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)

    def __contains__(self, name: object) -> bool:
        return name in self._stored

    @property
    def graph(self) -> bytes:
        """The graph, with all that was put into it."""
        return bytes(self._graph)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor, unread."""
        return self._stored[name].shape

    def kind(self, name: str) -> int:
        """onnx's number of a tensor's type."""
        return self._stored[name].kind

    def put(self, name: str, values: NDArray[Any]) -> NDArray[Any] | None:
        """Write a tensor over with another of its shape; or of one that lies in a file, what onnxruntime is
        to have in its place: numbers of the tensor's kind, those of 4 bits packed in the first half of the
        array.
        """
        tensor = self._stored[name]
        _, size = self._size(name, tensor)
        numbers = np.ascontiguousarray(values, np.dtype(_KINDS[tensor.kind]).newbyteorder("<"))
        if numbers.shape != tensor.shape:
            raise ValueError(f"{name} is of {tensor.shape}, not {numbers.shape}")
        raw = nibbles(numbers) if tensor.kind == UINT4 else numbers
        if not tensor.file:
            self._graph[tensor.start : tensor.start + size] = raw.tobytes()
            return None
        if tensor.kind == UINT4:
            numbers.reshape(-1)[:size] = raw
        return numbers

    def _size(self, name: str, tensor: Tensor) -> tuple[int, int]:
        """How many numbers a tensor has, and how many bytes these take."""
        where = f"{self.path}: {shorten(name)}"
        count = math.prod(checked_shape(tensor.shape, where))
        if tensor.kind not in _KINDS:
            raise ManifestError(f"{where} is of the kind {tensor.kind}, which no graph here has")
        size = -(-count // 2) if tensor.kind == UINT4 else count * np.dtype(_KINDS[tensor.kind]).itemsize
        if tensor.stop - tensor.start != size or not size:
            raise ManifestError(
                f"{where} has {tensor.stop - tensor.start} bytes, its shape {tensor.shape} takes {size}; "
                "export it again"
            )
        return count, size


def nibbles(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Whole numbers 0..15 packed by two, the first in the low half."""
    flat = values.astype(np.uint8).reshape(-1)
    flat = np.append(flat, np.zeros(flat.size % 2, np.uint8))
    packed: NDArray[np.uint8] = flat[0::2] | (flat[1::2] << 4).astype(np.uint8)
    return packed

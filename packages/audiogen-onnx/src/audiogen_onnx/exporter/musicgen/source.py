"""The tensors a graph is written from, read one at a time, in the numbers that a dtype leaves of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from audiogen_core.ops import Float
from audiogen_core.weights import Weights
from audiogen_onnx.exporter.musicgen.numbers import stored


class Source:
    """Tensors of a checkpoint by the names they have here.

    pieces  name -> the tensors of the checkpoint it is made of, put below one another
    """

    def __init__(self, table: Weights, pieces: Mapping[str, Sequence[str]]) -> None:
        self.table, self.pieces = table, pieces

    def __contains__(self, name: str) -> bool:
        return all(piece in self.table for piece in self.pieces.get(name, (name,)))

    def take(self, name: str, *shape: int) -> Float:
        """A tensor. Raises WeightsError when it is missing, misshapen or not finite."""
        names = self.pieces.get(name, (name,))
        part = (shape[0] // len(names), *shape[1:])
        taken = [self.table.take(piece, part) for piece in names]
        return taken[0] if len(taken) == 1 else np.concatenate(taken)

    def product(self, x: Float, name: str, *shape: int, dtype: str) -> Float:
        """x @ weight.T in numpy, the weight being the one that a graph of that dtype holds."""
        return x @ stored(self.take(name, *shape), dtype).T

"""What a run of the transformer remembers: keys and values of all positions, in memory laid out once."""

from __future__ import annotations

import mlx.core as mx


class LayerCache:
    """Keys and values of one layer: (rows, heads, positions, head width), filled from the left."""

    def __init__(self, rows: int, heads: int, positions: int, width: int, dtype: mx.Dtype) -> None:
        self.keys = mx.zeros((rows, heads, positions, width), dtype)
        self.values = mx.zeros((rows, heads, positions, width), dtype)

    def add(self, start: int, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Put in the keys and values of positions from `start` on; returns those of all positions so far."""
        end = start + keys.shape[2]
        self.keys[:, :, start:end] = keys
        self.values[:, :, start:end] = values
        return self.keys[:, :, :end], self.values[:, :, :end]


class Cache:
    """The caches of all layers, and how many positions are in them.

    fill  (rows,) positions at the beginning of each row that are nothing; None when there are none
    """

    def __init__(
        self,
        layers: int,
        rows: int,
        heads: int,
        positions: int,
        width: int,
        dtype: mx.Dtype,
        fill: tuple[int, ...] | None = None,
    ) -> None:
        self.layers = [LayerCache(rows, heads, positions, width, dtype) for _ in range(layers)]
        self.positions = positions
        self.offset = 0
        self.fill = fill if fill is not None and any(fill) else None

    @property
    def arrays(self) -> list[mx.array]:
        return [array for layer in self.layers for array in (layer.keys, layer.values)]

    def mask(self, steps: int) -> mx.array | str | None:
        """What each of the next `steps` positions may see: for scaled_dot_product_attention."""
        if self.fill is None:
            return "causal" if steps > 1 else None
        end = self.offset + steps
        keys = mx.arange(end)
        visible = keys[None, None, :] >= mx.array(self.fill)[:, None, None]  # (R, 1, end)
        seen = mx.logical_and(
            visible, keys[None, :] <= mx.arange(self.offset, end)[:, None]
        )  # (R, steps, end)
        itself = keys[None, :] == mx.arange(self.offset, end)[:, None]
        return mx.logical_or(seen, itself)[:, None]  # what is nothing sees itself, so no row is empty

    def places(self, steps: int) -> mx.array:
        """The place in its own sequence of each of the next positions: (rows or 1, steps)."""
        places = mx.arange(self.offset, self.offset + steps)[None]
        if self.fill is None:
            return places
        return mx.maximum(places - mx.array(self.fill)[:, None], 0)

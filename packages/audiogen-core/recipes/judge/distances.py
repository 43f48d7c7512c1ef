"""How far a set of clips is from held-out music: Frechet distances between statistics of short windows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

WINDOW, HOP = 2.0, 1.0  # seconds

Table = NDArray[np.float64]  # (windows, values)


def window_means(rows: NDArray[np.float32], frame_rate: float) -> Table:
    """Means over windows of 2 s, one every second, of rows (frames, values)."""
    length, hop = round(WINDOW * frame_rate), round(HOP * frame_rate)
    starts = range(0, max(1, len(rows) - length + 1), hop)
    return np.stack([rows[start : start + length].mean(axis=0, dtype=np.float64) for start in starts])


class Frechet:
    """The distance of sets of windows from a reference, each value in units of its spread there.

    distance = |m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)) over means m and covariances C, divided by the number
    of values that vary in the reference (Dowson and Landau 1982; 0 is the same).
    """

    def __init__(self, reference: Table) -> None:
        spread = reference.std(axis=0)
        self._kept = spread > 1e-3 * max(float(spread.max()), 1e-12)
        self._centre, self._spread = reference.mean(axis=0)[self._kept], spread[self._kept]
        self._mean, self._covariance = self._moments(reference)

    def __call__(self, windows: Table) -> float:
        mean, covariance = self._moments(windows)
        root = _root(self._covariance)
        between = np.linalg.eigvalsh(root @ covariance @ root)
        cross = 2 * np.sqrt(np.clip(between, 0, None)).sum()
        total = ((mean - self._mean) ** 2).sum() + np.trace(covariance) + np.trace(self._covariance) - cross
        return float(max(total, 0.0) / len(self._mean))

    def _moments(self, table: Table) -> tuple[Table, Table]:
        scaled = (table[:, self._kept] - self._centre) / self._spread
        return scaled.mean(axis=0), np.cov(scaled, rowvar=False)


def _root(covariance: Table) -> Table:
    values, vectors = np.linalg.eigh(covariance)
    root: Table = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    return root

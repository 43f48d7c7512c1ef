"""The distance between two sets of clips in the space of the codec, without any model to download.

Called kad-encodec where the codec is EnCodec: the kernel distance of KAD (arXiv 2502.15602) on the codec's
own latents. It is unbiased with few clips and good for comparing runs with one codec; it is blind to what
the codec does not tell apart, and figures of different codecs cannot be compared.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

WINDOW = 1.0  # seconds


def embed(tracks: Sequence[NDArray[np.int64]], vectors: NDArray[np.float32], frame_rate: float) -> Floats:
    """Mean and standard deviation of the latents over windows of a second: float64 (windows, 2 D).

    tracks   codes (frames, K) each; K may be less than the codec has
    vectors  float32 (codebooks, N, D), `Codec.codebook_vectors()`
    """
    size = max(2, round(WINDOW * frame_rate))
    rows = []
    for codes in tracks:
        latents = np.zeros((len(codes), vectors.shape[2]))
        for k in range(codes.shape[1]):
            latents += vectors[k][codes[:, k]]
        for start in range(0, len(latents) - size + 1, size):
            part = latents[start : start + size]
            rows.append(np.concatenate([part.mean(axis=0), part.std(axis=0)]))
    return np.array(rows).reshape(len(rows), 2 * vectors.shape[2])


def kernel_distance(one: Floats, other: Floats) -> float | None:
    """The unbiased squared maximum mean discrepancy with a Gaussian kernel, times 1000.

    one, other  (n, D) and (m, D); None when either has fewer than two rows

    The kernel's width is the median distance within `one`, the reference. About 0, also slightly below it,
    means that the sets cannot be told apart.
    """
    if len(one) < 2 or len(other) < 2:
        return None
    scale = _median_square(one)
    within = [_mean_kernel(part, part, scale, same=True) for part in (one, other)]
    return 1000.0 * (sum(within) - 2.0 * _mean_kernel(one, other, scale, same=False))


def _squares(one: Floats, other: Floats) -> Floats:
    """Squared distances (n, m)."""
    squares: Floats = (one**2).sum(1)[:, None] + (other**2).sum(1)[None] - 2.0 * one @ other.T
    return squares.clip(min=0.0)


def _median_square(rows: Floats) -> float:
    above = _squares(rows, rows)[np.triu_indices(len(rows), 1)]
    return float(np.median(above)) or 1.0


def _mean_kernel(one: Floats, other: Floats, scale: float, *, same: bool) -> float:
    kernel = np.exp(-_squares(one, other) / (2.0 * scale))
    if same:
        return float((kernel.sum() - len(one)) / (len(one) * (len(one) - 1)))
    return float(kernel.mean())

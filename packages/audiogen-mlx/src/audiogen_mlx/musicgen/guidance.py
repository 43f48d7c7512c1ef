"""Classifier-free guidance: what several conditionings predict, put together into one prediction.

Rows of a batch lie group by group: all items with everything that was asked for, then (with a style and a
text) all items with the style alone, then all items with nothing, or with the negative prompt.
"""

from __future__ import annotations

import mlx.core as mx


def plain(asked: mx.array, other: mx.array, scale: float) -> mx.array:
    """Away from `other` towards `asked`: other + scale * (asked - other). Any shapes that agree.

    `other` is the prediction with no conditioning, or with a negative prompt. Scale 1 gives `asked`.
    Source: Ho and Salimans 2022, "Classifier-free diffusion guidance" (arXiv 2207.12598), for logits.
    """
    return other + scale * (asked - other)


def dual(asked: mx.array, style: mx.array, other: mx.array, scale: float, style_scale: float) -> mx.array:
    """Guidance by text and style: other + scale * (style + style_scale * (asked - style) - other).

    asked  with text and style
    style  with the style alone
    other  with neither, or with a negative prompt

    The higher `style_scale`, the more the text counts against the style; 1 gives `plain`.
    Source: Rouard et al. 2024, "Audio conditioning for music generation via discrete bottleneck
    features" (arXiv 2407.12563), section 4.3.
    """
    return plain(plain(asked, style, style_scale), other, scale)


def combine(logits: mx.array, scale: float, style_scale: float | None = None) -> mx.array:
    """Logits (groups * B, ...) of two groups, or three with a `style_scale` -> (B, ...)."""
    if style_scale is None:
        asked, other = mx.split(logits, 2, axis=0)
        return plain(asked, other, scale)
    asked, style, other = mx.split(logits, 3, axis=0)
    return dual(asked, style, other, scale, style_scale)

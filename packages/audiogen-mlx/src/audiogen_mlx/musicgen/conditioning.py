"""What steers a run: prompts, melodies and styles as rows of vectors, and how their predictions are joined.

Every item of a batch has a row with everything that was asked for. Guidance adds rows with nothing, or with
the negative prompt; guidance by text and style adds rows with the style alone. Rows lie group by group: all
items with everything, then (with a style and a text) all with the style alone, then all with nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from audiogen_core.audio import Audio
from audiogen_mlx.musicgen import melody as melodies
from audiogen_mlx.musicgen.load import Parts
from audiogen_mlx.musicgen.model import Rows
from audiogen_mlx.musicgen.options import Compat, Settings

LONG_PROMPT = 2_000
"""Characters from which on a prompt is cut, with a warning."""

LONG_TOKENS = 512
"""Tokens that are read of such a prompt: the most T5 was trained on."""

Join = Callable[[mx.array], mx.array]
"""Logits (rows, ...) -> (items, ...)."""


@dataclass(frozen=True)
class Item:
    """One clip to be made: its prompt, the melody it follows, the style's tokens (T, D). None: nothing."""

    prompt: str | None
    melody: Audio | None = None
    style: mx.array | None = None

    @property
    def empty(self) -> bool:
        return self.prompt is None and self.melody is None and self.style is None

    @property
    def dual(self) -> bool:
        """Whether text and style can be weighed against each other."""
        return self.prompt is not None and self.style is not None


@dataclass(frozen=True)
class _Row:
    """The vectors of a row: those of the clip and of the text, (n, D) each, or None."""

    clip: mx.array | None
    text: mx.array
    attends: bool


class Conditioner:
    """Makes rows of items. Texts are encoded once, each by itself, so that no batch changes them."""

    def __init__(self, parts: Parts, items: Sequence[Item], settings: Settings) -> None:
        self.parts = parts
        self.config = parts.config
        self.items = items
        self.compat: Compat = settings.compat
        self.negative = settings.negative_prompt
        self._texts: dict[str, mx.array] = {}
        self._dtype = parts.transformer.dtype
        self.groups, self.join = self._plan(settings)

    def rows(self, start: float | None = None) -> Rows:
        """The rows of a window; `start` in seconds is where it begins in a clip of several windows."""
        rows = [self._row(item, group, start) for group in self.groups for item in self.items]
        if self.config.text_in_prefix:
            return self._prefixed(rows)
        last = max((index for index, row in enumerate(rows) if row.attends), default=-1)
        if last < 0:
            return self._with_clips(Rows(len(rows)), rows)
        attending = [row.text for row in rows[: last + 1]]  # of zeros nothing comes, exactly
        longest = max(len(text) for text in attending)
        text = mx.stack([_filled(text, longest, after=True) for text in attending])
        lengths = np.array([len(text) for text in attending])
        mask = None
        if (lengths < longest).any() and (self.compat == "audiogen" or self.config.masks_text):
            mask = mx.array(np.arange(longest) < lengths[:, None])
        return self._with_clips(Rows(len(rows), text=text, mask=mask), rows)

    def text(self, prompt: str | None) -> mx.array:
        """A prompt as vectors (L, D); None is one vector of zeros."""
        if prompt is None:
            return mx.zeros((1, self.config.width), self._dtype)
        if prompt not in self._texts:
            ids, mask = read(self.parts, prompt)
            self.parts.tokenizer.tell_unknown(prompt)
            vectors = self.parts.t5(mx.array(ids), mx.array(mask))
            self._texts[prompt] = self.parts.transformer.project_text(vectors)[0]
            mx.eval(self._texts[prompt])
        return self._texts[prompt]

    def _plan(self, settings: Settings) -> tuple[list[str], Join]:
        """Which groups of rows there are, in order, and how their predictions are joined."""
        scale, weight = settings.guidance_scale, settings.style_guidance
        asked_for = self.negative is not None or not all(item.empty for item in self.items)
        dual = weight is not None and weight != 1 and any(item.dual for item in self.items)
        if scale == 1 or not asked_for:
            if not dual or weight is None:
                return ["all"], lambda logits: logits
            return ["all", "style"], lambda logits: combined(logits, weight)
        if not dual:
            return ["all", "other"], lambda logits: combined(logits, scale)
        return ["all", "style", "other"], lambda logits: combined(logits, scale, weight)

    def _row(self, item: Item, group: str, start: float | None) -> _Row:
        if group == "style" and item.dual:
            return _Row(item.style, self._blank(item), False)
        if group == "other":
            if self.negative is not None:
                return _Row(self._no_clip(item), self.text(self.negative), True)
            return _Row(self._no_clip(item), self._blank(item), False)
        return _Row(self._clip(item, start), self.text(item.prompt), item.prompt is not None)

    def _blank(self, item: Item) -> mx.array:
        """No text, as long as the item's own: in a prefix the music then begins at the same place."""
        return mx.zeros_like(self.text(item.prompt))

    def _clip(self, item: Item, start: float | None) -> mx.array | None:
        if item.style is not None:
            return item.style
        if item.melody is None or self.config.chroma is None:
            return self._no_clip(item)
        heard = item.melody if start is None else melodies.window(item.melody, start, self.config.chroma)
        return self._melody(melodies.chroma(heard, self.config.chroma))

    def _no_clip(self, item: Item) -> mx.array | None:
        if self.config.chroma is not None:
            return self._melody(melodies.null_chroma(1, self.config.chroma.bins))
        if self.config.style is not None:
            return mx.zeros((1 if item.style is None else len(item.style), self.config.width), self._dtype)
        return None

    def _melody(self, features: melodies.Chroma) -> mx.array:
        repeated = melodies.repeated(features, self.config.melody_frames)
        return self.parts.transformer.project_melody(mx.array(repeated))

    def _prefixed(self, rows: Sequence[_Row]) -> Rows:
        """Clip and text before the music. What is shorter is filled up on the left with what is not seen."""
        texts = [row.text for row in rows]
        if self.compat == "upstream":
            longest = max(len(text) for text in texts)
            texts = [_filled(text, longest, after=True) for text in texts]
        made = [
            text if row.clip is None else mx.concatenate([row.clip.astype(text.dtype), text])
            for row, text in zip(rows, texts, strict=True)
        ]
        return _stacked(Rows(len(rows)), made)

    def _with_clips(self, made: Rows, rows: Sequence[_Row]) -> Rows:
        """The rows with their clips as a prefix, where the model has one."""
        clips = [row.clip for row in rows if row.clip is not None]
        return made if not clips else _stacked(made, clips)


def read(parts: Parts, prompt: str) -> tuple[np.ndarray, np.ndarray]:
    """Token ids and mask (1, L) of a prompt. One past 2,000 characters is cut, with a warning."""
    if len(prompt) <= LONG_PROMPT:
        return parts.tokenizer.encode([prompt])
    ids, mask = parts.tokenizer.encode([prompt], max_length=LONG_TOKENS)
    whole = parts.tokenizer.encode([prompt])[0].shape[1]
    what = f"the first {LONG_TOKENS} of its {whole} tokens" if whole > LONG_TOKENS else "all of it"
    warnings.warn(
        f"the prompt has {len(prompt):,} characters; the model reads {what}, and was trained on a sentence "
        "or two",
        UserWarning,
        stacklevel=2,
    )
    return ids, mask


def _filled(vectors: mx.array, count: int, *, after: bool) -> mx.array:
    """Vectors (n, D) with zeros after or before them: (count, D)."""
    missing = mx.zeros((count - len(vectors), vectors.shape[1]), vectors.dtype)
    return mx.concatenate([vectors, missing] if after else [missing, vectors])


def _stacked(rows: Rows, prefixes: Sequence[mx.array]) -> Rows:
    longest = max(len(prefix) for prefix in prefixes)
    prefix = mx.stack([_filled(prefix, longest, after=False) for prefix in prefixes])
    fill = tuple(longest - len(prefix) for prefix in prefixes)
    mx.eval(prefix)
    return Rows(rows.count, prefix, fill, rows.text, rows.mask)


# Guidance


def guided(asked: mx.array, other: mx.array, scale: float) -> mx.array:
    """Away from `other` towards `asked`: other + scale * (asked - other). Any shapes that agree.

    `other` is the prediction with no conditioning, or with a negative prompt. Scale 1 gives `asked`.
    Source: Ho and Salimans 2022, "Classifier-free diffusion guidance" (arXiv 2207.12598), for logits.
    """
    return other + scale * (asked - other)


def guided_by_both(
    asked: mx.array, style: mx.array, other: mx.array, scale: float, style_scale: float
) -> mx.array:
    """Guidance by text and style: other + scale * (style + style_scale * (asked - style) - other).

    asked  with text and style
    style  with the style alone
    other  with neither, or with a negative prompt

    The higher `style_scale`, the more the text counts against the style; 1 gives `guided`.
    Source: Rouard et al. 2024, "Audio conditioning for music generation via discrete bottleneck
    features" (arXiv 2407.12563), section 4.3.
    """
    return guided(guided(asked, style, style_scale), other, scale)


def combined(logits: mx.array, scale: float, style_scale: float | None = None) -> mx.array:
    """Logits (groups * B, ...) of two groups, or three with a `style_scale` -> (B, ...)."""
    if style_scale is None:
        asked, other = mx.split(logits, 2, axis=0)
        return guided(asked, other, scale)
    asked, style, other = mx.split(logits, 3, axis=0)
    return guided_by_both(asked, style, other, scale, style_scale)

"""What steers a run: prompts, melodies and styles as rows of vectors, and how their predictions are joined.

Every item of a batch has a row with everything that was asked for. Guidance adds rows with nothing, or with
the negative prompt; guidance by text and style adds rows with the style alone. Rows lie group by group: all
items with everything, then (with a style and a text) all with the style alone, then all with nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from audiogen_core.audio import Audio
from audiogen_core.musicgen import melody as melodies
from audiogen_core.musicgen.options import Compat, Settings

if TYPE_CHECKING:
    from audiogen_core.codec import Codec
    from audiogen_core.musicgen.config import Config
    from audiogen_core.sampling import Sampling
    from audiogen_core.tokenizer import Tokenizer

LONG_PROMPT = 2_000
"""Characters from which on a prompt is cut, with a warning."""

LONG_TOKENS = 512
"""Tokens that are read of such a prompt: the most T5 was trained on."""

Floats = NDArray[np.float32]
Tokens = NDArray[np.int32]
Logits: TypeAlias = Any
"""Arrays of whatever computes them."""

Join = Callable[[Logits], Logits]
"""Logits (rows, ...) -> (items, ...)."""


@dataclass(frozen=True)
class Rows:
    """What conditions each row of a run, arrays of numpy (a network takes those of its own kind too).

    count   of rows
    prefix  (rows, P, width) vectors before the music, or None
    fill    how many vectors at the beginning of each row's prefix are nothing, or None
    text    (attending, L, width) vectors the first rows attend to; the others attend to nothing
    mask    (attending, L) true where a vector is real, or None when all are
    """

    count: int
    prefix: Any = None
    fill: tuple[int, ...] | None = None
    text: Any = None
    mask: Any = None


class Network(Protocol):
    """What computes for a run: the parts of a model, in whatever framework."""

    config: Config
    codec: Codec

    @property
    def tokenizer(self) -> Tokenizer: ...

    def text(self, ids: Tokens, mask: NDArray[np.bool_]) -> Floats:
        """Token ids and mask (1, L) -> the vectors (L, width) of the text."""

    def melody(self, features: Floats) -> Floats:
        """Features of a melody (frames, bins) -> vectors (frames, width)."""

    def style(self, clip: Any, **options: Any) -> Floats:
        """A clip -> style tokens (T, width); the options are those of `style.hear`."""

    def sampler(self, sampling: Sampling, seeds: Sequence[int], steps: int) -> Any:
        """What draws so many steps, of one item for each seed."""

    def steps(
        self, rows: Rows, tokens: Tokens, first: int, conditioner: Conditioner, sampler: Any, base: int
    ) -> Generator[Tokens]:
        """The columns (B, K, n) of tokens (B, K, S) from `first` on, as they are known; see `patterns`.

        base  steps that were drawn before, of other windows

        Raises ModelError when logits are not finite.
        """


@dataclass(frozen=True)
class Item:
    """One clip to be made: its prompt, the melody it follows, the style's tokens (T, D). None: nothing."""

    prompt: str | None
    melody: Audio | None = None
    style: Floats | None = None

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

    clip: Floats | None
    text: Floats
    attends: bool


class Conditioner:
    """Makes rows of items. Texts are encoded once, each by itself, so that no batch changes them."""

    def __init__(self, parts: Network, items: Sequence[Item], settings: Settings) -> None:
        self.parts = parts
        self.config = parts.config
        self.items = items
        self.compat: Compat = settings.compat
        self.negative = settings.negative_prompt
        self._texts: dict[str, Floats] = {}
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
        text = np.stack([_filled(text, longest, after=True) for text in attending])
        lengths = np.array([len(text) for text in attending])
        mask = None
        if (lengths < longest).any() and (self.compat == "audiogen" or self.config.masks_text):
            mask = np.arange(longest) < lengths[:, None]
        return self._with_clips(Rows(len(rows), text=text, mask=mask), rows)

    def text(self, prompt: str | None) -> Floats:
        """A prompt as vectors (L, D); None is one vector of zeros."""
        if prompt is None:
            return np.zeros((1, self.config.width), np.float32)
        if prompt not in self._texts:
            ids, mask = read(self.parts.tokenizer, prompt)
            self.parts.tokenizer.tell_unknown(prompt)
            self._texts[prompt] = self.parts.text(ids, mask)
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

    def _blank(self, item: Item) -> Floats:
        """No text, as long as the item's own: in a prefix the music then begins at the same place."""
        return np.zeros_like(self.text(item.prompt))

    def _clip(self, item: Item, start: float | None) -> Floats | None:
        if item.style is not None:
            return item.style
        if item.melody is None or self.config.chroma is None:
            return self._no_clip(item)
        heard = item.melody if start is None else melodies.window(item.melody, start, self.config.chroma)
        return self._melody(melodies.chroma(heard, self.config.chroma))

    def _no_clip(self, item: Item) -> Floats | None:
        if self.config.chroma is not None:
            return self._melody(melodies.null_chroma(1, self.config.chroma.bins))
        if self.config.style is not None:
            count = 1 if item.style is None else len(item.style)
            return np.zeros((count, self.config.width), np.float32)
        return None

    def _melody(self, features: melodies.Chroma) -> Floats:
        repeated = melodies.repeated(features, self.config.melody_frames)
        return self.parts.melody(repeated)

    def _prefixed(self, rows: Sequence[_Row]) -> Rows:
        """Clip and text before the music. What is shorter is filled up on the left with what is not seen."""
        texts = [row.text for row in rows]
        if self.compat == "upstream":
            longest = max(len(text) for text in texts)
            texts = [_filled(text, longest, after=True) for text in texts]
        made = [
            text if row.clip is None else np.concatenate([row.clip, text])
            for row, text in zip(rows, texts, strict=True)
        ]
        return _stacked(Rows(len(rows)), made)

    def _with_clips(self, made: Rows, rows: Sequence[_Row]) -> Rows:
        """The rows with their clips as a prefix, where the model has one."""
        clips = [row.clip for row in rows if row.clip is not None]
        return made if not clips else _stacked(made, clips)


def read(tokenizer: Tokenizer, prompt: str) -> tuple[np.ndarray, np.ndarray]:
    """Token ids and mask (1, L) of a prompt. One past 2,000 characters is cut, with a warning."""
    if len(prompt) <= LONG_PROMPT:
        return tokenizer.encode([prompt])
    ids, mask = tokenizer.encode([prompt], max_length=LONG_TOKENS)
    whole = tokenizer.encode([prompt])[0].shape[1]
    what = f"the first {LONG_TOKENS} of its {whole} tokens" if whole > LONG_TOKENS else "all of it"
    warnings.warn(
        f"the prompt has {len(prompt):,} characters; the model reads {what}, and was trained on a sentence "
        "or two",
        UserWarning,
        stacklevel=2,
    )
    return ids, mask


def _filled(vectors: Floats, count: int, *, after: bool) -> Floats:
    """Vectors (n, D) with zeros after or before them: (count, D)."""
    missing = np.zeros((count - len(vectors), vectors.shape[1]), np.float32)
    return np.concatenate([vectors, missing] if after else [missing, vectors])


def _stacked(rows: Rows, prefixes: Sequence[Floats]) -> Rows:
    longest = max(len(prefix) for prefix in prefixes)
    prefix = np.stack([_filled(prefix, longest, after=False) for prefix in prefixes])
    fill = tuple(longest - len(prefix) for prefix in prefixes)
    return Rows(rows.count, prefix, fill, rows.text, rows.mask)


# Guidance


def guided(asked: Logits, other: Logits, scale: float) -> Logits:
    """Away from `other` towards `asked`: other + scale * (asked - other). Any shapes that agree.

    `other` is the prediction with no conditioning, or with a negative prompt. Scale 1 gives `asked`.
    Source: Ho and Salimans 2022, "Classifier-free diffusion guidance" (arXiv 2207.12598), for logits.
    """
    return other + scale * (asked - other)


def guided_by_both(asked: Logits, style: Logits, other: Logits, scale: float, style_scale: float) -> Logits:
    """Guidance by text and style: other + scale * (style + style_scale * (asked - style) - other).

    asked  with text and style
    style  with the style alone
    other  with neither, or with a negative prompt

    The higher `style_scale`, the more the text counts against the style; 1 gives `guided`.
    Source: Rouard et al. 2024, "Audio conditioning for music generation via discrete bottleneck
    features" (arXiv 2407.12563), section 4.3.
    """
    return guided(guided(asked, style, style_scale), other, scale)


def combined(logits: Logits, scale: float, style_scale: float | None = None) -> Logits:
    """Logits (groups * B, ...) of two groups, or three with a `style_scale` -> (B, ...)."""
    count = logits.shape[0] // (2 if style_scale is None else 3)
    if style_scale is None:
        return guided(logits[:count], logits[count:], scale)
    asked, style, other = logits[:count], logits[count : 2 * count], logits[2 * count :]
    return guided_by_both(asked, style, other, scale, style_scale)

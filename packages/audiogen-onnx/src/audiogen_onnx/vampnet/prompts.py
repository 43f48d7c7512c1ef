"""From options to a mask: what of a clip is kept as a prompt, and where new codes are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from audiogen_core.audio import Audio
from audiogen_core.errors import CodesError, OptionError
from audiogen_core.noise import Noise
from audiogen_core.values import admitted
from audiogen_onnx.vampnet import mask as masks
from audiogen_onnx.vampnet.beats import Beats, beat_mask
from audiogen_onnx.vampnet.mask import Mask, seconds_to_frames
from audiogen_onnx.vampnet.options import VampOptions
from audiogen_onnx.vampnet.sound import Span


@dataclass(frozen=True)
class Layout:
    """Where the frames of the result lie in time.

    sample_rate, hop_length  of the codec
    codebooks    rows of codes
    length       samples of the clip, at the codec's rate
    left, right  samples made before and after it
    """

    sample_rate: int
    hop_length: int
    codebooks: int
    length: int
    left: int = 0
    right: int = 0

    @classmethod
    def of(
        cls, options: VampOptions, sample_rate: int, hop_length: int, codebooks: int, length: int
    ) -> Layout:
        left, right = (round(s * sample_rate) for s in (options.outpaint_left, options.outpaint_right))
        return cls(sample_rate, hop_length, codebooks, length, left, right)

    @property
    def before(self) -> int:
        """Frames made before the clip."""
        return -(-self.left // self.hop_length)

    @property
    def inside(self) -> int:
        """Frames of the clip itself."""
        return -(-self.length // self.hop_length)

    @property
    def frames(self) -> int:
        """Frames in all."""
        return self.before + -(-(self.length + self.right) // self.hop_length)

    @property
    def skipped(self) -> int:
        """Decoded samples before the first one of the result."""
        return self.before * self.hop_length - self.left


def build_mask(
    options: VampOptions,
    layout: Layout,
    *,
    given: ArrayLike | None = None,
    noise: Noise | None = None,
    clip: Callable[[], Audio] | None = None,
) -> Mask:
    """The mask (codebooks, frames), True where codes are made.

    given  a mask of the user's, (codebooks, frames) or (frames,): nothing is made outside it
    noise  for the dropout of beats, a random intensity, a random roll and dropout; drawn in that order
    clip   gives the sound, mono, at the codec's rate: asked only when onsets are wanted

    Raises OptionError for options out of range, CodesError for a mask that does not fit.
    """
    shape = (1, layout.codebooks, layout.frames)
    near_beats = _beats(options, layout, noise)
    region = _region(options, layout, given)
    period = options.period if options.period is not None else (7 if region is None else 0)
    keep = options.keep if options.keep is not None else (3 if region is None else layout.codebooks)
    mask: Mask = masks.build(
        shape,
        random_intensity=options.random_intensity,
        prefix=seconds_to_frames(options.prefix, layout.sample_rate, layout.hop_length),
        suffix=seconds_to_frames(options.suffix, layout.sample_rate, layout.hop_length),
        period=period,
        period_width=options.period_width,
        roll=options.roll,
        onsets=_onsets(options, layout, clip),
        onset_width=options.onset_width,
        dropout_share=options.dropout,
        within=near_beats,
        keep=keep,
        noise=noise,
        compat=options.compat,
    )[0]
    return mask if region is None else np.logical_and(mask, region)


def spans(options: VampOptions, layout: Layout, fade: float) -> list[Span]:
    """Where the result differs from the clip, in seconds of the result; none: everywhere.

    At the ends of the clip the fade, in seconds too, lies inside it: there is something to fade from.
    """
    if not options.keep_original or (options.infill is None and not options.outpaints):
        return []
    begin = options.outpaint_left
    end = begin + layout.length / layout.sample_rate
    made: list[Span] = []
    if options.outpaint_left:
        made.append((-np.inf, begin + fade))
    if options.outpaint_right:
        made.append((end - fade, np.inf))
    if options.infill is not None:
        made.append((begin + options.infill[0], begin + options.infill[1]))
    return made


def _region(options: VampOptions, layout: Layout, given: ArrayLike | None) -> Mask | None:
    """Where anything is made at all; None: everywhere."""
    shape = (layout.codebooks, layout.frames)
    region: Mask | None = None
    if options.outpaints:
        region = np.zeros(shape, np.bool_)
        region[:, : layout.before] = True
        if layout.right:  # with the last frame of the clip, unless it is full
            region[:, layout.before + layout.length // layout.hop_length :] = True
    if options.infill is not None:
        start, end = options.infill
        facts = {"sample_rate": layout.sample_rate, "hop_length": layout.hop_length}
        inside = masks.infill((layout.codebooks, layout.inside), start, end, **facts)
        region = np.zeros(shape, np.bool_) if region is None else region
        region[:, layout.before : layout.before + layout.inside] |= inside
    if given is not None:
        users = _fitted(given, shape)
        region = users if region is None else region & users
    return region


def _fitted(given: ArrayLike, shape: tuple[int, int]) -> Mask:
    """A user's mask in the shape of the codes. Raises CodesError, OptionError for what is no array."""
    mask = admitted("the mask", NDArray[Any], given)
    if mask.shape not in (shape, shape[1:], (1, shape[1])):
        raise CodesError(
            f"the mask has shape {mask.shape}, but this clip needs {shape} (codebooks, frames) or "
            f"({shape[1]},); was it made for a clip of another length?"
        )
    if mask.dtype != np.bool_ and not np.isin(mask, (0, 1)).all():
        raise CodesError("a mask must hold True (generate) and False (keep), or 1 and 0")
    return np.broadcast_to(mask.astype(np.bool_), shape)


def _onsets(options: VampOptions, layout: Layout, clip: Callable[[], Audio] | None) -> list[int]:
    if not options.onset_width or clip is None:
        return []
    from audiogen_onnx.vampnet.onsets import detect

    return [int(frame) + layout.before for frame in detect(clip(), hop_length=layout.hop_length)]


def _beats(options: VampOptions, layout: Layout, noise: Noise | None) -> Mask | None:
    """The mask of a beat grid or a list of beats, or None when none was asked for."""
    if options.bpm is not None:
        beats = Beats.grid(
            options.bpm,
            layout.length / layout.sample_rate,
            offset=options.beat_offset,
            beats_per_bar=options.beats_per_bar,
        )
    elif options.beats is not None:
        beats = Beats.at(options.beats, downbeats=options.downbeat_times)
    else:
        return None
    if not options.upbeats and not beats.downbeats.any():
        raise OptionError("only downbeats are to be kept, but none of the beats is marked as one")
    inside = beat_mask(
        (1, layout.codebooks, layout.inside),
        beats,
        sample_rate=layout.sample_rate,
        hop_length=layout.hop_length,
        before=options.before_beat,
        after=options.after_beat,
        downbeats=options.downbeats,
        upbeats=options.upbeats,
        dropout=options.beat_dropout,
        noise=noise,
        compat=options.compat,
    )
    after = layout.frames - layout.before - layout.inside
    return np.pad(inside, ((0, 0), (0, 0), (layout.before, after)), constant_values=True)

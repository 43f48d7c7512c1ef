"""Clips longer than a model makes at once: windows that each begin with the end of the one before.

Source: audiocraft's `MusicGen.generate` with `extend_stride`.
"""

from __future__ import annotations

from dataclasses import dataclass

from audiogen_core.errors import OptionError

STRIDE_SHARE = 0.6
"""How far windows are apart, as a share of their length: 18 s of 30 s, unless asked otherwise."""


@dataclass(frozen=True)
class Window:
    """One run of the model, in frames.

    start   of the window in the clip
    prompt  frames at its beginning that are known
    frames  its length, with these
    """

    start: int
    prompt: int
    frames: int


def plan(total: int, prompt: int, limit: int, stride: int) -> list[Window]:
    """The windows of a clip of `total` frames that begins with `prompt` given ones, without empty ones.

    limit   frames in a window
    stride  frames from window to window; each begins with the last `limit - stride` of the one before

    Of a prompt longer than a window only its end is heard. Raises OptionError.
    """
    if not 0 < stride < limit:
        raise OptionError(
            f"windows of {limit} frames must be 1 to {limit - 1} apart, so that each hears some of the one "
            f"before; got {stride}"
        )
    if prompt >= total:
        raise OptionError(f"{prompt} frames are known of {total} in all: there is none to make")
    if total <= limit:
        return [Window(0, prompt, total)]
    start = 0
    if prompt > limit:
        start = prompt - (limit - stride)
        prompt = limit - stride
    windows = []
    while start + prompt < total:
        frames = min(total - start, limit)
        if prompt < frames:
            windows.append(Window(start, prompt, frames))
        start += stride
        prompt = max(frames - stride, 0)
    return windows

"""Which speakers the channels of a clip are for, and how they are mixed to fewer.

Surround is mixed as ITU-R BS.775-3 has it: the centre and the surrounds go into left and right at -3 dB, the
channel of low effects (LFE) is left out. Speakers are bits of the mask that WAVEFORMATEXTENSIBLE has;
channels come in the order of the bits.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
from numpy.typing import NDArray

from audiogen_core.errors import AudioMismatch, OptionError, SoundWarning

Floats = NDArray[np.float32]

CHOICES = ("left", "right", "mid", "side")
"""What can be taken out of stereo: a side, half the sum of both, or half their difference."""

QUIETER = 0.1
"""Mono this much quieter than the difference of its sides is told: -20 dB."""

_HALF = math.sqrt(0.5)  # -3 dB
_STEREO = {
    0x001: (1, 0),  # front left
    0x002: (0, 1),  # front right
    0x004: (_HALF, _HALF),  # centre
    0x008: (0, 0),  # low effects
    0x010: (_HALF, 0),  # back left
    0x020: (0, _HALF),  # back right
    0x040: (1, 0),  # front left of the centre
    0x080: (0, 1),  # front right of the centre
    0x100: (0.5, 0.5),  # back centre: at -3 dB to both surrounds
    0x200: (_HALF, 0),  # side left
    0x400: (0, _HALF),  # side right
}
"""Speaker -> its part in left and right."""

_USUAL = {3: 0x007, 4: 0x033, 5: 0x037, 6: 0x03F, 7: 0x70F, 8: 0x63F}
"""Channels -> speakers where a file does not say: what RFC 9639 has for FLAC, 5.1 and 7.1 among them."""

_VORBIS = {
    3: (0, 2, 1),
    5: (0, 2, 1, 3, 4),
    6: (0, 2, 1, 5, 3, 4),
    7: (0, 2, 1, 6, 5, 3, 4),
    8: (0, 2, 1, 7, 5, 6, 3, 4),
}
"""Channels -> where the usual ones are found in the order of Vorbis and Opus."""


def from_vorbis(channels: int) -> tuple[int, ...]:
    """Which channel of a Vorbis or Opus stream each usual one is."""
    return _VORBIS.get(channels, tuple(range(channels)))


def speakers_of(channels: int, stated: int = 0) -> int:
    """The speakers of so many channels: those stated where they fit, else the usual ones; 0 when unknown."""
    stated &= 0x3FFFF
    return stated if stated.bit_count() == channels else _USUAL.get(channels, 0)


class Mixer:
    """Mixes blocks (n, old) to (n, new): fewer channels, or copies of one.

    speakers  of the old channels as the file states them; see `speakers_of`
    choice    what is taken out of stereo, "left", "right", "mid" or "side"; the channels are copies of it

    Mono is the mid of stereo; of channels whose speakers are not known it is the mean. Raises AudioMismatch
    where it is not plain how to mix, OptionError for a choice that there is not.
    """

    def __init__(self, old: int, new: int, name: str, speakers: int = 0, choice: str | None = None) -> None:
        if choice is not None and choice not in CHOICES:
            raise OptionError(f"channel must be one of {', '.join(CHOICES)}, got {choice!r}")
        if choice == "side" and old == 1:
            raise AudioMismatch(f"{name}: has one channel, so there is no difference of sides to take")
        self.old, self.new, self.name, self.choice = old, new, name, choice
        self._energy_of_mid, self._energy_of_sides = 0.0, 0.0
        self._stereo: NDArray[np.float32] | None = None
        mask = speakers_of(old, speakers)
        if old > 2 and mask and not mask & ~sum(_STEREO):
            parts = [part for speaker, part in _STEREO.items() if mask & speaker]
            self._stereo = np.array(parts, np.float32)
        known = old <= 2 or self._stereo is not None
        if not (new == old and choice is None) and old != 1:
            if choice is None and new > 2:
                raise AudioMismatch(f"{name}: {old} channels cannot be mixed to {new}; mix to 1 first")
            if not known and (new == 2 or choice is not None):
                raise AudioMismatch(f"{name}: {old} channels cannot be mixed to 2; mix to 1 first")

    @property
    def fewest(self) -> int:
        """How many channels there are where they are fewest: what `down` gives."""
        return 1 if self.choice is not None else min(self.old, self.new)

    def down(self, block: Floats) -> Floats:
        """Samples (n, old) -> (n, fewest)."""
        if self.old == self.fewest:
            return block
        if self.old > 2 and self._stereo is None:
            return np.asarray(block.mean(axis=1, keepdims=True, dtype=np.float64), np.float32)
        stereo = block if self._stereo is None else block @ self._stereo
        if self.fewest == 2:
            return stereo
        left, right = stereo[:, :1], stereo[:, 1:]
        if self.choice in ("left", "right"):
            return left if self.choice == "left" else right
        half = np.float32(0.5)
        if self.choice == "side":
            return half * left - half * right
        mid: Floats = half * left + half * right
        if self.choice is None:
            self._energy_of_mid += float(np.vdot(mid, mid))
            self._energy_of_sides += float(np.vdot(stereo, stereo)) / 2  # that of mid and difference together
        return mid

    def up(self, block: Floats) -> Floats:
        """Samples (n, fewest) -> (n, new)."""
        return block if self.new == self.fewest else np.repeat(block, self.new, axis=1)

    def tell(self) -> None:
        """Warn when left and right took each other out in what was mixed to mono."""
        difference = self._energy_of_sides - self._energy_of_mid
        if self._energy_of_mid < QUIETER**2 * difference:
            warnings.warn(
                f"{self.name}: left and right are in antiphase and take each other out in mono; take one of "
                "them (channel left or right), or their difference (channel side)",
                SoundWarning,
                stacklevel=3,
            )

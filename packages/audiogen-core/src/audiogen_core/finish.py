"""What is done to a clip between the model and its file, as `Output` asks for it.

A clip is converted to the rate and channels that are wanted, joined to the one that it continues, faded where
it does not end by itself, and brought to its level. Sound passes in blocks, float32 (channels, n); what takes
two passes is kept in a `Store`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiogen_core.audio import Audio, AudioWriter, check_rate, probe, resampled
from audiogen_core.channels import Mixer
from audiogen_core.check import Listener
from audiogen_core.errors import OptionError
from audiogen_core.loudness import SILENCE, Meter, gain_to
from audiogen_core.output import Output, Sound, Take, continued
from audiogen_core.recipe import Recipe
from audiogen_core.sound_writer import LOSSY, check_sound, fitting_rate, stored_as
from audiogen_core.store import Samples, Store

Blocks = Iterator[Samples]
Floats = NDArray[np.float64]

CEILING = 10 ** (-0.05 / 20)
"""The highest peak that is left, -0.05 dB of full scale."""

LOSSY_CEILING = 10 ** (-1 / 20)
"""The same for formats whose decoders give back other peaks than were written."""

AUTO = (0.02, 0.25)
"""Seconds of the fades at an end that does not end by itself."""

_QUIET = 10 ** (-60 / 20)  # an end below this ends by itself
_EDGE = 0.005  # seconds at which is looked for that
_LOOK = 0.02  # seconds within which a limiter goes down and comes back
_SEAM = 0.01  # seconds in which a clip gives way to what continues it
_NEAR = 3.0  # seconds on both sides of a seam whose levels are compared
_STEP = 6.0  # dB by which they may differ: so much is music
_ROUNDS = 5  # in which a loudness is approached
_CLOSE = 0.05  # LU that end them


def form(asked: Output, made: Sound, path: Path | None = None) -> Sound:
    """What a clip will be that is made as `made`, written to a file of that name.

    Raises OptionError when the file cannot store samples as asked, AudioError for a rate there is not or a
    clip that cannot be read, AudioMismatch when channels cannot be mixed so.
    """
    clip = _kept(asked)
    rate, channels, subtype = made.sample_rate, made.channels, None
    if isinstance(clip, Audio):
        rate, channels = clip.sample_rate, clip.channels
    elif clip is not None:
        info = probe(clip)
        rate, channels, subtype = info.sample_rate, info.channels, info.subtype
    if asked.channels is not None:
        for before in (made.channels, channels):
            if before is not None:
                Mixer(before, asked.channels, "the clip")
        channels = asked.channels
    if asked.sample_rate is not None:
        rate = check_rate(asked.sample_rate)
    if path is not None:
        subtype = stored_as(path, asked.subtype, subtype)
        if rate is not None and asked.sample_rate is None and asked.output():
            rate = fitting_rate(path, rate)
    return Sound(rate, channels, made.seconds, subtype)


def check(asked: Output, made: Sound, paths: Sequence[Path], channel: str | None = None) -> None:
    """Refuse clips that could not be written, one to each path, before they are made.

    channel  what is taken out of the clips that go in, which leaves one

    Raises as `form` and `check_sound` do.
    """
    for path in paths[:1]:  # all have one suffix, and lie in one folder
        to = form(asked, made, path)
        channels = to.channels if channel is None or asked.channels else 1
        twice = bool(asked.normalize) or asked.loudness is not None
        check_sound(path, to.sample_rate, channels, to.seconds, len(paths), to.subtype, twice=twice)


def finished(take: Take, asked: Output, to: Sound, *, path: Path | None = None, live: bool = False) -> Blocks:
    """The blocks of a take as they are to be written: at the rate and with the channels of `to`.

    path  of the file they go into; temporary files lie beside it
    live  hand blocks on as they come: a limiter keeps the peak, and a loudness cannot be brought about

    Raises OptionError, and AudioMismatch when its channels cannot be mixed so.
    """
    rate, channels = to.sample_rate or take.sample_rate, to.channels or take.channels
    ceiling = LOSSY_CEILING if path is not None and path.suffix.lower() in LOSSY else CEILING
    if live and asked.loudness is not None:
        raise OptionError("loudness is known of whole clips alone; a stream takes gain")
    clip, only_new = _kept(asked), getattr(asked, "only_new", False)
    level = asked.gain is not None or asked.loudness is not None
    blocks = _converted((piece.samples for piece in take.pieces), take, rate, channels)
    if clip is not None or only_new:
        known = round(take.known * rate / take.sample_rate)
        blocks = _after(blocks, known)
    if clip is not None:
        given = (clip if isinstance(clip, Audio) else Audio.load(clip)).resample(rate).mix(channels).samples
        blocks = _following(blocks, given, rate, ceiling if asked.normalize else None)
        if take.seconds is not None:
            length = round(take.seconds * rate) - given.shape[1]
            if length < 1:
                raise OptionError(
                    f"the clip to go on with has {given.shape[1] / rate:.2f} s; ask for more seconds",
                    "seconds",
                )
            blocks = _exactly(blocks, length)
        if not only_new:
            blocks = chain([given], blocks)
    start, end, spare = _fades(asked, take.closed or continued(asked) is not None)
    if clip is not None and not only_new:
        start = 0.0
    blocks = _faded(blocks, rate, start, end, spare)
    if clip is not None and not level:  # it keeps its own level, and what follows has been brought to it
        return blocks
    return _levelled(blocks, asked, rate, channels, ceiling, None if path is None else path.parent, live)


@dataclass(frozen=True)
class Saved:
    """A file that was written: what is in it, and what is wrong with it.

    resampled  why its rate is another than that of the clip, or ""
    """

    seconds: float
    sample_rate: int
    channels: int
    faults: tuple[str, ...]
    resampled: str


def save(take: Take, asked: Output, path: Path, recipe: Recipe | None, *, stays: bool = True) -> Saved:
    """Write a take to a file, with its recipe if it has one, and listen to what is written.

    stays  whether the file is to be there although something is wrong with it

    Raises as `finished` and `AudioWriter` do.
    """
    made = Sound(take.sample_rate, take.channels)
    to, plain = form(asked, made, path), form(asked, made)
    assert to.sample_rate is not None and to.channels is not None
    resampled = f"resampled to {to.sample_rate} Hz; {path.suffix} does not hold {plain.sample_rate}"
    listener = Listener(to.sample_rate, to.channels)
    with (
        suppress(_Faulty),
        AudioWriter(path, to.sample_rate, to.channels, recipe=recipe, subtype=to.subtype) as writer,
    ):
        for block in finished(take, asked, to, path=path):
            writer.write(block)
            listener.add(block)
        if listener.faults() and not stays:
            raise _Faulty
    return Saved(
        writer.samples / to.sample_rate,
        to.sample_rate,
        to.channels,
        tuple(map(str, listener.faults())),
        resampled if to.sample_rate != plain.sample_rate else "",
    )


class _Faulty(Exception):
    """What is being written is not to stay."""


def whole(take: Take, asked: Output) -> Audio:
    """The clip of a take, with what was asked for done to it. Raises as `finished`."""
    pieces = list(live(take, asked) if _untouched(asked) else _pieces(take, asked, live=False))
    if len(pieces) == 1:
        return pieces[0]
    return Audio(np.concatenate([piece.samples for piece in pieces], axis=1), pieces[0].sample_rate)


def live(take: Take, asked: Output) -> Iterator[Audio]:
    """The pieces of a take as they come, with what was asked for done to them. Raises as `finished`."""
    return take.pieces if _untouched(asked) else _pieces(take, asked, live=True)


def _pieces(take: Take, asked: Output, *, live: bool) -> Iterator[Audio]:
    to = form(asked, Sound(take.sample_rate, take.channels))
    blocks, rate = finished(take, asked, to, live=live), to.sample_rate or take.sample_rate
    return (Audio(block, rate) for block in blocks if block.shape[1])


def _untouched(asked: Output) -> bool:
    return not asked.output() and _kept(asked) is None and not getattr(asked, "only_new", False)


def _kept(asked: Output) -> Any:
    """The clip that comes first as it is, or None."""
    return continued(asked) if getattr(asked, "keep_original", False) else None


def _converted(blocks: Iterable[Samples], take: Take, rate: int, channels: int) -> Blocks:
    """Blocks of a take at another rate, with other channels."""
    mixer = Mixer(take.channels, channels, "the clip")
    mixed = (mixer.down(block.T).T for block in blocks)
    for block in resampled(mixed, take.sample_rate, rate, mixer.fewest):
        if block.shape[1]:
            yield np.ascontiguousarray(mixer.up(block.T).T)
    mixer.tell()


def _after(blocks: Blocks, count: int) -> Blocks:
    """What comes after so many samples."""
    for block in blocks:
        if block.shape[1] > count:
            yield block[:, count:]
        count = max(0, count - block.shape[1])


def _exactly(blocks: Blocks, length: int) -> Blocks:
    """So many samples; the last one stays where some are missing, as one may when the rate was changed."""
    last: Samples | None = None
    for block in blocks:
        last = block[:, :length]
        length -= last.shape[1]
        if last.shape[1]:
            yield last
        if length <= 0:
            return
    if last is not None and length > 0:
        yield np.repeat(last[:, -1:], length, axis=1)


# Joining


def _following(blocks: Blocks, given: Samples, rate: int, ceiling: float | None) -> Blocks:
    """Blocks that go on where `given` ends: without a step in level, without a click, below the ceiling."""
    begun, rest = _begun(blocks, round(_NEAR * rate))
    gain = _gain_after(given[:, -round(_NEAR * rate) :], begun, rate)
    blocks = (block * np.float32(gain) for block in chain([begun], rest))
    if ceiling is not None:
        blocks = limited(blocks, rate, ceiling)
    lead = given[:, : -round(_SEAM * rate) - 1 : -1]  # what was heard last, backwards
    weight = (0.5 + 0.5 * np.cos(np.pi * np.arange(lead.shape[1]) / lead.shape[1])).astype(np.float32)
    at = 0
    for block in blocks:
        count = min(block.shape[1], len(weight) - at)
        if count:
            block = block.copy()
            block[:, :count] += weight[at : at + count] * (lead[:, at : at + count] - block[:, :count])
            at += count
        yield block


def _begun(blocks: Blocks, length: int) -> tuple[Samples, Blocks]:
    """At least so many samples as one block, as far as there are some; and the rest."""
    first: list[Samples] = []
    for block in blocks:
        first.append(block)
        length -= block.shape[1]
        if length <= 0:
            break
    return np.concatenate(first, axis=1), blocks


def _gain_after(before: Samples, after: Samples, rate: int) -> float:
    """What brings a sound near the level of the one before it, unless one of them is silent."""
    levels = [_loudest(samples, round(0.4 * rate)) for samples in (before, after[:, : round(_NEAR * rate)])]
    if min(levels) < _QUIET:
        return 1.0
    step = 20 * np.log10(levels[1] / levels[0])
    return float(10 ** ((np.clip(step, -_STEP, _STEP) - step) / 20))


def _loudest(samples: Samples, size: int) -> float:
    """The root mean square of the loudest `size` samples in a row."""
    energy = np.concatenate([[0.0], np.cumsum((samples.astype(np.float64) ** 2).mean(axis=0))])
    size = min(size, samples.shape[1])
    return float(np.sqrt((energy[size:] - energy[:-size]).max() / size))


# Fades


def _fades(asked: Output, closed: bool) -> tuple[float, float, bool]:
    """Seconds of the fades at both ends, and whether an end is spared that ends by itself."""
    if asked.fade is None or (asked.fade == "auto" and closed):
        return 0.0, 0.0, True
    if asked.fade == "auto":
        return *AUTO, True
    if isinstance(asked.fade, tuple):
        return *asked.fade, False
    assert isinstance(asked.fade, float)
    return min(AUTO[0], asked.fade), asked.fade, False


def _faded(blocks: Iterable[Samples], rate: int, start: float, end: float, spare: bool) -> Blocks:
    rising, falling = _rise(round(start * rate)), _rise(round(end * rate))[::-1]
    edge = max(1, round(_EDGE * rate))
    held: deque[Samples] = deque()
    at = count = 0  # samples so far, and of them those held back for the fade at the end
    for block in blocks:
        if at == 0 and spare and np.abs(block[:, :edge]).max(initial=0) < _QUIET:
            rising = rising[:0]
        if at < len(rising):
            block = block.copy()
            part = rising[at : at + block.shape[1]]
            block[:, : len(part)] *= part
        at += block.shape[1]
        held.append(block)
        count += block.shape[1]
        while held and count - held[0].shape[1] >= len(falling):
            count -= held[0].shape[1]
            yield held.popleft()
    if held:
        tail = np.concatenate(held, axis=1)
        if not (spare and np.abs(tail[:, -edge:]).max() < _QUIET):
            part = falling[-tail.shape[1] :] if tail.shape[1] >= len(falling) else _rise(tail.shape[1])[::-1]
            tail[:, tail.shape[1] - len(part) :] *= part
        yield tail


def _rise(count: int) -> Samples:
    """From 0 to 1 by half a cosine."""
    return (0.5 - 0.5 * np.cos(np.pi * np.arange(count) / max(count, 1))).astype(np.float32)


# Level


def _levelled(
    blocks: Iterable[Samples],
    asked: Output,
    rate: int,
    channels: int,
    ceiling: float,
    folder: Path | None,
    live: bool,
) -> Blocks:
    gain = 10 ** ((asked.gain or 0.0) / 20)
    if asked.loudness is None and (live or not asked.normalize):
        louder = (block * np.float32(gain) if gain != 1 else block for block in blocks)
        yield from limited(louder, rate, ceiling) if asked.normalize else louder
        return
    with Store(channels, folder) as store:
        peak = 0.0
        for block in blocks:
            store.add(block)
            peak = max(peak, float(np.abs(block).max()))
        if asked.loudness is not None:
            yield from _as_loud(store, asked.loudness, rate, ceiling if asked.normalize else None)
            return
        if peak * gain > ceiling:
            gain = ceiling / peak
        for block in store.blocks():
            yield block * np.float32(gain) if gain != 1 else block


def _as_loud(store: Store, wanted: float, rate: int, ceiling: float | None) -> Blocks:
    """What was kept at a loudness, LUFS; peaks above the ceiling are limited. Silence stays it."""

    def at(gain: float) -> Blocks:
        louder = (block * np.float32(gain) for block in store.blocks())
        return louder if ceiling is None else limited(louder, rate, ceiling)

    gain = 1.0
    for _ in range(_ROUNDS):  # a limiter takes away from the loudness
        meter = Meter(rate, store.channels)
        for block in at(gain):
            meter.add(block)
        reached = meter.loudness()
        if reached == SILENCE or abs(wanted - reached) < _CLOSE:
            break
        gain *= gain_to(wanted, reached)
    return at(gain)


def limited(blocks: Iterable[Samples], rate: int, ceiling: float) -> Blocks:
    """Blocks whose peaks are held below a ceiling: quieter around each, in a slope before it and behind.

    What needs no limiting passes as it is. Blocks come out a little later than they went in.
    """
    reach = max(1, round(_LOOK * rate))
    need = np.ones(reach - 1)  # the gain that each sample needs, from `reach` before the first that is held
    held: Samples | None = None
    for block in chain(blocks, [None]):
        if block is None:
            need = np.concatenate([need, np.ones(reach - 1)])
        else:
            peaks = np.abs(block).max(axis=0).astype(np.float64)
            need = np.concatenate([need, ceiling / np.maximum(peaks, ceiling)])
            held = block if held is None else np.concatenate([held, block], axis=1)
        count = len(need) - 2 * (reach - 1)
        if held is None or count <= 0:
            continue
        if need.min() == 1:
            yield held[:, :count]
        else:
            total = np.concatenate([[0.0], np.cumsum(_least(need, reach))])
            gain = (total[reach:] - total[:-reach]) / reach
            yield held[:, :count] * np.minimum(gain, 1).astype(np.float32)
        held, need = held[:, count:], need[count:]


def _least(values: Floats, width: int) -> Floats:
    """The least of each `width` values in a row."""
    done = 1
    while done < width:
        step = min(done, width - done)
        values = np.minimum(values[:-step], values[step:])
        done += step
    return values

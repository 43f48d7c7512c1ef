"""What is told of a clip that is no music, and that nothing is told of music."""

from __future__ import annotations

import numpy as np
import pytest

from audiogen_core.audio import Audio
from audiogen_core.check import Listener, faults
from audiogen_core.compose import compose

RATE = 32_000
NOISE = np.random.default_rng(0).normal(0, 0.1, 6 * RATE)
TIME = np.arange(6 * RATE) / RATE
MUSIC = compose(1, seconds=8).audio.resample(RATE).mix(1).normalize(-3)
BINS = np.fft.rfftfreq(6 * RATE, 1 / RATE)


def pink() -> np.ndarray:
    shaped = np.fft.irfft(np.fft.rfft(NOISE) / np.sqrt(np.maximum(BINS, 20)))
    return 0.5 * shaped / np.abs(shaped).max()


def kinds(samples: np.ndarray, rate: int = RATE) -> list[str]:
    return [fault.kind for fault in faults(Audio(np.atleast_2d(samples).astype(np.float32), rate))]


@pytest.mark.parametrize("seed", range(8))
def test_nothing_is_told_of_music(seed: int) -> None:
    assert faults(compose(seed, seconds=8).audio) == []


@pytest.mark.parametrize(
    ("samples", "kind"),
    [
        (0.3 * np.sin(2 * np.pi * 440 * TIME), "tone"),
        (0.3 * np.sin(2 * np.pi * 440 * TIME) + 0.3 * NOISE, "tone"),
        (0.2 * np.sign(np.sin(2 * np.pi * 110 * TIME)), "tone"),
        (0.3 * np.sin(2 * np.pi * 440 * TIME[: 2 * RATE]), "tone"),
        (NOISE, "noise"),
        (0.05 * NOISE, "noise"),
        (pink(), "noise"),
    ],
    ids=["sine", "noisy sine", "buzz", "short", "white", "soft", "pink"],
)
def test_one_tone_and_noise_are_told(samples: np.ndarray, kind: str) -> None:
    assert kinds(samples) == [kind]


def test_silence_is_told_with_its_place() -> None:
    music = MUSIC.samples.copy()
    music[:, 2 * RATE : round(4.5 * RATE)] *= 1e-4
    (fault,) = faults(Audio(music, RATE))
    assert (fault.kind, str(fault)) == ("silence", "silent from 2.0 to 4.5 s")
    music = MUSIC.samples.copy()
    music[:, 2 * RATE : round(3.5 * RATE)] = 0
    assert kinds(music) == []
    assert kinds(np.concatenate([MUSIC.samples, np.zeros((1, round(2.15 * RATE)))], axis=1)) == ["silence"]
    assert kinds(np.zeros(3 * RATE)) == ["silence"]


@pytest.mark.parametrize(
    ("seconds", "hole", "kind"),
    [(5, 1.3, "silence"), (5, 0.8, None), (2, 0.6, "silence"), (2, 0.4, None), (6, 1.4, "silence")],
)
def test_a_hole_inside_a_short_clip_is_told(seconds: int, hole: float, kind: str | None) -> None:
    """More than a fifth of it; and what fades to little is as good as silent."""
    whole = MUSIC.samples[:, : seconds * RATE]
    stretch = slice(RATE, round((1 + hole) * RATE))
    silent, soft, ended = whole.copy(), whole.copy(), whole.copy()
    silent[:, stretch] = 0
    soft[:, stretch] *= 0.02  # to -34 dB
    ended[:, round((seconds - hole) * RATE) :] = 0
    assert kinds(silent) == ([kind] if kind else [])
    assert kinds(soft) == (["hole"] if kind else [])
    assert kinds(ended) == []  # at its end a clip may fade
    if kind:
        (fault,) = faults(Audio(soft, RATE))
        assert str(fault) == f"next to silent from 1.0 to {1 + hole:.1f} s"


def test_clipping_is_counted() -> None:
    loud = np.clip(4 * MUSIC.samples, -1, 1)
    (fault,) = faults(Audio(loud, RATE))
    assert fault.kind == "clipping" and fault.amount > 100
    assert kinds(MUSIC.samples) == []
    (fault,) = faults(Audio(2 * MUSIC.samples, RATE))
    assert fault.kind == "clipping" and fault.amount == np.count_nonzero(np.abs(2 * MUSIC.samples) > 1)
    first = int((np.abs(2 * MUSIC.samples) > 1).argmax())
    assert fault.start == pytest.approx(first / RATE)


@pytest.mark.parametrize("shift", [0.1, -0.2])
def test_a_shift_is_told(shift: float) -> None:
    (fault,) = faults(Audio(0.5 * MUSIC.samples + np.float32(shift), RATE))
    assert fault.kind == "dc" and fault.amount == pytest.approx(shift, abs=0.01)


def test_it_does_not_matter_how_a_clip_comes() -> None:
    clip = np.concatenate([0.3 * np.sin(2 * np.pi * 440 * TIME), np.zeros(3 * RATE)])[None].astype(np.float32)
    listener = Listener(RATE, 1)
    for start in range(0, clip.shape[1], 1009):
        listener.add(clip[:, start : start + 1009])
    assert listener.faults() == faults(Audio(clip, RATE))
    assert [fault.kind for fault in listener.faults()] == ["silence", "tone"]


@pytest.mark.parametrize(
    ("rate", "length"), [(1_000, 1), (1_000, 5_000), (8_000, 24_000), (192_000, 100_000)]
)
def test_clips_of_any_rate_and_length_can_be_looked_at(rate: int, length: int) -> None:
    assert kinds(np.full(length, 1e-4), rate) == (["silence"] if length > 2 * rate else [])

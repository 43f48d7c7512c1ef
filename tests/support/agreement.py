"""How near a MusicGen in fewer bits is to itself in float32, on music that the float32 one made.

Both are led through the same tokens, so that one other token does not change all that follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from audiogen_core import patterns
from audiogen_core.audio import Audio
from audiogen_core.codes import Codes
from audiogen_core.musicgen.conditioning import Conditioner, Item
from audiogen_core.spectrum import decibels, spectrogram
from audiogen_onnx.musicgen.generate import MusicGen

PROMPTS = (
    "slow piano in C minor",
    "fast techno with a deep bass",
    "calm ambient pads",
    "upbeat chiptune",
    "drums and bass, 120 BPM",
    "a sad tune for strings",
    "happy folk guitar",
    "dark drone",
)

FLOOR = -60.0
"""Decibels below which a band counts as silent."""


@dataclass(frozen=True)
class Walk:
    """Some clips gone through step by step.

    tokens    (B, K, S) that were given
    logits    (B, K, S - 1, N), guided, of the tokens after each
    wanted    (B, K, S - 1) true where the token after is a code
    """

    tokens: np.ndarray
    logits: np.ndarray
    wanted: np.ndarray


def own_music(music: MusicGen, seconds: float, prompts: Sequence[str] = PROMPTS) -> list[Codes]:
    """A clip for each prompt, as the model draws them."""
    return music.generate_codes_batch(list(prompts), seconds=seconds, seed=1)


def walk(music: MusicGen, clips: Sequence[Codes], prompts: Sequence[str] = PROMPTS, **options: float) -> Walk:
    """Lead a model through clips, with guidance as it has by default where no option says otherwise."""
    config, settings = music.config, music.settings(**options)
    laid = [patterns.delay(clip.values, config.delays, config.special) for clip in clips]
    tokens = np.pad(np.stack(laid), ((0, 0), (0, 0), (1, 0)), constant_values=config.special)
    conditioner = Conditioner(music._parts, [Item(prompt) for prompt in prompts], settings)
    run = music._parts.decoder.run(conditioner.rows(), tokens.shape[2])
    found = []
    for step in range(tokens.shape[2] - 1):
        given = np.tile(tokens[:, :, step : step + 1], (len(conditioner.groups), 1, 1))
        joined = conditioner.join(run(given, last=True))
        found.append(np.array(joined))  # without guidance these are the run's own, and written over
    run.close()
    return Walk(tokens, np.concatenate(found, axis=2), tokens[:, :, 1:] != config.special)


def agreement(first: Walk, second: Walk) -> float:
    """The part of the codes whose likeliest value is the same."""
    same = first.logits.argmax(axis=-1) == second.logits.argmax(axis=-1)
    return float(same[first.wanted].mean())


def drawn(music: MusicGen, walked: Walk) -> list[Codes]:
    """The codes that the model would have drawn at each step, all by the same random numbers."""
    sampling: Any = music.settings(seed=1).sampling
    count, _, steps, _ = walked.logits.shape
    sampler = music._parts.sampler(sampling, range(count), steps)
    drawn = np.stack([sampler(walked.logits[:, :, step], step) for step in range(steps)], axis=2)
    info = music.codec.info
    clips = [patterns.undelay(one, music.config.delays) for one in drawn]
    return [Codes(one, info.codebook_size, info.frame_rate, info.name) for one in clips]


def mel_distance(first: Audio, second: Audio) -> float:
    """The mean difference of log-mel spectrograms, dB."""
    powers = [decibels(spectrogram(one, bands=80).power, floor=FLOOR) for one in (first, second)]
    return float(np.abs(powers[0] - powers[1]).mean())

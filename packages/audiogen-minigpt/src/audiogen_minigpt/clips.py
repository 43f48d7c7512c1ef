"""Sounds to judge a model by: what it makes of nothing, and of the openings of tracks it has not seen."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from audiogen_core.audio import Audio, ClippingWarning
from audiogen_core.codec import Codec
from audiogen_core.codes import Codes
from audiogen_core.recipe import Recipe
from audiogen_minigpt.dataset import Dataset
from audiogen_minigpt.defaults import SAMPLING
from audiogen_minigpt.generate import Generator
from audiogen_minigpt.model import GPT
from audiogen_minigpt.pictures import draw_comparison, draw_spectrogram
from audiogen_minigpt.rollout import Rollout
from audiogen_minigpt.sample import Sampler

Ints = NDArray[np.int64]
OnStep = Callable[[int, int], None]


@dataclass(frozen=True)
class Continuation:
    """A track that was cut, and how a model goes on with it.

    track     path of the original, relative to the folder of audio
    opening   frames that were given
    original, codes  int64 (frames, K) of equal length, the opening included
    """

    track: str
    opening: int
    original: Ints
    codes: Ints


def load_codec(model: GPT, facts: Mapping[str, Any], name: str | None = None) -> Codec:
    """The codec of a model's codes, on torch; `name` (or a path) where the name in the facts is not enough.

    Raises UnknownModel, DownloadError, WeightsError, or ModelError when it is not the codec of the facts.
    """
    from audiogen_core import codecs

    codec = codecs.load_codec(name or str(facts["codec"]), ops="torch")
    return Generator(model, model.config, codec, facts).codec  # it checks that they fit


def continue_codes(model: GPT, opening: Ints, frames: int, seed: int) -> Ints:
    """An opening (frames, K) and what a model in eval mode goes on with: int64 (frames + more, K).

    An empty opening begins from nothing.
    """
    layout, device = model.layout, model.wte.weight.device
    known = opening if len(opening) else np.full((1, layout.codebooks), layout.codebook_size, np.int64)
    sampler = Sampler(
        SAMPLING,
        layout.codebooks,
        layout.codebook_size,
        [seed],
        cycle=layout.name == "flatten",
        device=device,
    )
    rollout = Rollout(model, torch.from_numpy(np.ascontiguousarray(known))[None], frames, sampler)
    new = [block[0].cpu().numpy() for block in rollout.blocks(frames)]
    return np.concatenate([opening, *new])


def continue_tracks(
    model: GPT, data: Dataset, *, count: int, seconds: float, seed: int, on_step: OnStep | None = None
) -> list[Continuation]:
    """Continue the first `count` tracks of the data, each from the first half of its first `seconds`."""
    made = []
    for index in range(min(count, len(data.tracks))):
        frames = min(round(seconds * data.meta.frame_rate), data.tracks[index].frames)
        original = data.track(index)[:frames]
        opening = max(1, frames // 2)
        codes = continue_codes(model, original[:opening], frames - opening, seed + index)
        made.append(Continuation(data.tracks[index].path, opening, original, codes))
        if on_step:
            on_step(index + 1, count)
    return made


def decode(codec: Codec, codes: Ints) -> Audio:
    """The sound of codes (frames, K)."""
    info = codec.info
    return codec.decode(Codes(codes.T.astype(np.int32), info.codebook_size, info.frame_rate, info.name))


def save(audio: Audio, path: Path, recipe: Recipe | None = None) -> Path:
    """Write a clip that is made to judge by: that some samples were clipped is not worth a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ClippingWarning)
        return audio.save(path, recipe=recipe)


def write_continuations(
    codec: Codec, made: Sequence[Continuation], folder: Path
) -> list[dict[str, Path | None]]:
    """Write original-1.wav, continuation-1.wav and continuation-1.png of each, and so on, into a folder.

    Both sounds are what the codec makes of codes, so that they differ by the model alone. Returns the files
    as "original", "sound" and "picture", the last None without matplotlib.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files: list[dict[str, Path | None]] = []
    for number, entry in enumerate(made, 1):
        original, sound = decode(codec, entry.original), decode(codec, entry.codes)
        clips = {f"original: {entry.track}": original, "continuation of its first half": sound}
        files.append(
            {
                "original": save(original, folder / f"original-{number}.wav"),
                "sound": save(sound, folder / f"continuation-{number}.wav"),
                "picture": draw_comparison(clips, folder / f"continuation-{number}.png"),
            }
        )
    return files


def write_clips(
    generator: Generator,
    folder: Path,
    *,
    count: int,
    seconds: float,
    seed: int = 0,
    on_step: OnStep | None = None,
) -> list[Path]:
    """Make clips from nothing, as sample-1.wav and so on, with their spectrograms. Returns the sounds."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for row in range(count):
        sampling = replace(SAMPLING, seed=seed + row)
        audio = generator.generate(seconds, sampling=sampling)
        path = folder / f"sample-{row + 1}.wav"
        save(audio, path, generator.recipe(seconds, sampling))
        draw_spectrogram(audio, path.with_suffix(".png"))
        paths.append(path)
        if on_step:
            on_step(row + 1, count)
    return paths

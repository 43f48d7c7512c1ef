"""Sounds to judge a model by: of nothing, of the openings of tracks it has not seen, and as it trains."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiogen_core import codecs, plot
from audiogen_core.audio import Audio, ClippingWarning
from audiogen_core.codec import Codec
from audiogen_core.codes import Codes
from audiogen_core.errors import AudiogenError
from audiogen_core.models import Fetch
from audiogen_core.sampling import Sampling
from audiogen_core.training.pictures import draw
from audiogen_minigpt.config import SAMPLING
from audiogen_minigpt.dataset import Dataset, Windows
from audiogen_minigpt.generate import Generator, check_codec
from audiogen_minigpt.model import GPT
from audiogen_minigpt.sampling import continue_codes
from audiogen_minigpt.settings import TrainConfig

FOLDER = "samples"

Ints = NDArray[np.int64]
OnStep = Callable[[int, int], None]

log = logging.getLogger(__name__)


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


def load_codec(
    model: GPT, facts: Mapping[str, Any], name: str | None = None, fetch: Fetch | None = None
) -> Codec:
    """The codec of a model's codes, on torch; `name` (or a path) where the name in the facts is not enough.

    Raises UnknownModel, DownloadError, WeightsError, or ModelError when it is not the codec of the facts.
    """
    codec = codecs.load_codec(name or str(facts["codec"]), ops="torch", fetch=fetch)
    check_codec(codec, model.config, facts)
    return codec


def continued(model: GPT, opening: Ints, frames: int, seed: int, sampling: Sampling = SAMPLING) -> Ints:
    """An opening (frames, K) and what a model in eval mode goes on with: int64 (frames + more, K)."""
    (codes,) = continue_codes(model, opening, frames, [seed], sampling)
    return np.concatenate([opening, codes[0]])


def continue_tracks(
    model: GPT,
    data: Dataset,
    *,
    count: int,
    seconds: float,
    seed: int,
    sampling: Sampling = SAMPLING,
    on_step: OnStep | None = None,
) -> list[Continuation]:
    """Continue the first `count` tracks of the data, each from the first half of its first `seconds`."""
    continuations = []
    for index in range(min(count, len(data.tracks))):
        frames = min(round(seconds * data.meta.frame_rate), data.tracks[index].frames)
        original = data.track(index)[:frames]
        opening = max(1, frames // 2)
        codes = continued(model, original[:opening], frames - opening, seed + index, sampling)
        continuations.append(Continuation(data.tracks[index].path, opening, original, codes))
        if on_step:
            on_step(index + 1, count)
    return continuations


def decode(codec: Codec, codes: Ints) -> Audio:
    """The sound of codes (frames, K)."""
    info = codec.info
    return codec.decode(Codes(codes.T.astype(np.int32), info.codebook_size, info.frame_rate, info.name))


def save(audio: Audio, path: Path) -> Path:
    """Write a clip that is made to judge by: that some samples were clipped is not worth a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ClippingWarning)
        return audio.save(path, force=True)


def write_continuations(
    codec: Codec, continuations: Sequence[Continuation], folder: Path
) -> list[dict[str, Path | None]]:
    """Write original-1.wav, continuation-1.wav and continuation-1.png of each, and so on, into a folder.

    Both sounds are what the codec makes of codes, so that they differ by the model alone. Returns the files
    as "original", "sound" and "picture", the last None without matplotlib.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files: list[dict[str, Path | None]] = []
    for number, entry in enumerate(continuations, 1):
        original, sound = decode(codec, entry.original), decode(codec, entry.codes)
        clips = {f"original: {entry.track}": original, "continuation of its first half": sound}
        files.append(
            {
                "original": save(original, folder / f"original-{number}.wav"),
                "sound": save(sound, folder / f"continuation-{number}.wav"),
                "picture": draw(plot.compare, clips, folder / f"continuation-{number}.png"),
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
    on_step: Callable[[float, float], None] | None = None,
) -> list[Path]:
    """Make clips from nothing, as sample-1.wav and so on, with their spectrograms. Returns the sounds.

    on_step  called with (clips done, clips in all), also within a clip
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []

    def told(row: int, done: float, total: float) -> None:
        if on_step:
            on_step(row + done / total, count)

    for row in range(count):
        sampling = replace(generator.sampling, seed=seed + row)
        audio = generator.generate(
            seconds, sampling=sampling, normalize=True, fade="auto", on_step=partial(told, row)
        )
        path = folder / f"sample-{row + 1}.wav"
        save(audio, path)
        draw(plot.spectrogram, audio, path.with_suffix(".png"))
        paths.append(path)
    return paths


class Samples:
    """Makes a clip and its spectrogram at each evaluation, as far as the codec and matplotlib are there.

    Always from the same seed and the same opening, so that one hears what training changed.
    """

    def __init__(
        self,
        config: TrainConfig,
        windows: Windows,
        fetch: Fetch | None = None,
        sampling: Sampling = SAMPLING,
    ) -> None:
        self.config, self.windows, self.fetch, self.sampling = config, windows, fetch, sampling
        self.folder = Path(config.run) / FOLDER
        self._codec: Codec | None = None
        self._off = config.sample_seconds == 0
        if config.shard and not self._off:
            self._give_up("no samples are made while the weights are shared out over processes")

    def make(self, model: GPT, step: int) -> Path | None:
        """A clip as samples/step-00000123.wav, with its spectrogram beside it; None where it cannot be made.

        Half of the clip is the opening of a validation track, the rest is what the model makes of it.
        """
        codec = self._ready(model)
        if codec is None:
            return None
        frames = max(2, round(self.config.sample_seconds * self.windows.frame_rate))
        opening = self.windows.opening(frames // 2)
        was_training = model.training
        codes = continued(model.eval(), opening, frames - len(opening), self.config.seed, self.sampling)
        model.train(was_training)
        audio = decode(codec, codes)
        path = self.folder / f"step-{step:08d}.wav"
        try:
            self.folder.mkdir(exist_ok=True)
            save(audio, path)
            draw(plot.spectrogram, audio, path.with_suffix(".png"))
        except OSError as error:
            log.warning("%s: this sample could not be written (%s)", path, error.strerror)
            return None
        return path

    def _ready(self, model: GPT) -> Codec | None:
        """The codec, loaded when it is first needed; None where there are to be no samples."""
        if self._codec is None and not self._off:
            try:
                self._codec = load_codec(model, self.windows.facts, self.config.codec, self.fetch)
            except AudiogenError as error:
                self._give_up(f"no samples are made, because the codec cannot be used: {error}")
        return self._codec

    def _give_up(self, why: str) -> None:
        self._off = True
        log.warning("%s", why)

"""Sounds and pictures made while a model trains, always from the same seed and the same opening."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from audiogen_core.audio import Audio
from audiogen_core.codes import Codes
from audiogen_core.errors import AudiogenError
from audiogen_core.sampling import Sampling
from audiogen_minigpt.pictures import draw_spectrogram
from audiogen_minigpt.settings import TrainConfig

if TYPE_CHECKING:
    from audiogen_core.codec import Codec
    from audiogen_minigpt.model import GPT
    from audiogen_minigpt.windows import Windows

FOLDER = "samples"

log = logging.getLogger(__name__)


class Sampler:
    """Makes a clip and its spectrogram at each evaluation, as far as the codec and matplotlib are there."""

    def __init__(self, config: TrainConfig, windows: Windows) -> None:
        self.config, self.windows = config, windows
        self.folder = Path(config.run) / FOLDER
        self._codec: Codec | None = None
        self._opening: Audio | None = None
        self._off = config.sample_seconds == 0
        if config.shard and not self._off:
            self._give_up("no samples are made while the weights are shared out over processes")

    def make(self, model: GPT, step: int) -> Path | None:
        """A clip as samples/step-00000123.wav, with its spectrogram beside it; None where it cannot be made.

        Half of the clip is the opening of a validation track, the rest is what the model makes of it.
        """
        if self._off or not self._ready():
            return None
        from audiogen_minigpt.generate import Generator

        assert self._codec is not None
        was_training = model.training
        try:
            generator = Generator(model.eval(), model.config, self._codec, self.windows.facts)
            audio = generator.generate(
                self.config.sample_seconds / 2,
                prompt_audio=self._opening,
                sampling=Sampling(seed=self.config.seed),
            )
            self.folder.mkdir(exist_ok=True)
            path = audio.save(self.folder / f"step-{step:08d}.wav")
        except AudiogenError as error:
            self._give_up(f"no more samples are made: {error}")
            return None
        finally:
            model.train(was_training)
        draw_spectrogram(audio, path.with_suffix(".png"))
        return path

    def _ready(self) -> bool:
        """Load the codec and decode the opening, once."""
        if self._codec is None:
            from audiogen_core import codecs

            facts = self.windows.facts
            frames = round(self.config.sample_seconds / 2 * self.windows.frame_rate)
            values = self.windows.opening(max(1, frames)).T.astype(np.int32)
            try:
                self._codec = codecs.load(facts["codec"], ops="torch")
                codes = Codes(values, facts["codebook_size"], self.windows.frame_rate, facts["codec"])
                self._opening = self._codec.decode(codes)
            except AudiogenError as error:
                self._give_up(f"no samples are made, because the codec cannot be used: {error}")
        return not self._off

    def _give_up(self, why: str) -> None:
        self._off = True
        log.warning("%s", why)

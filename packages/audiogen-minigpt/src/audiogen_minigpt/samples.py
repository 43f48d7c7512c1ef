"""Sounds and pictures made while a model trains, always from the same seed and the same opening."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from audiogen_core.errors import AudiogenError
from audiogen_minigpt.pictures import draw_spectrogram
from audiogen_minigpt.settings import TrainConfig

if TYPE_CHECKING:
    from audiogen_core.codec import Codec
    from audiogen_minigpt.model import GPT
    from audiogen_minigpt.windows import Windows

FOLDER = "samples"

log = logging.getLogger(__name__)


class Samples:
    """Makes a clip and its spectrogram at each evaluation, as far as the codec and matplotlib are there."""

    def __init__(self, config: TrainConfig, windows: Windows) -> None:
        self.config, self.windows = config, windows
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
        from audiogen_minigpt.clips import continue_codes, decode, save

        frames = max(2, round(self.config.sample_seconds * self.windows.frame_rate))
        opening = self.windows.opening(frames // 2)
        was_training = model.training
        codes = continue_codes(model.eval(), opening, frames - len(opening), self.config.seed)
        model.train(was_training)
        audio = decode(codec, codes)
        path = self.folder / f"step-{step:08d}.wav"
        try:
            self.folder.mkdir(exist_ok=True)
            save(audio, path)
            draw_spectrogram(audio, path.with_suffix(".png"))
        except OSError as error:
            log.warning("%s: this sample could not be written (%s)", path, error.strerror)
            return None
        return path

    def _ready(self, model: GPT) -> Codec | None:
        """The codec, loaded when it is first needed; None where there are to be no samples."""
        if self._codec is None and not self._off:
            from audiogen_minigpt.clips import load_codec

            try:
                self._codec = load_codec(model, self.windows.facts, self.config.codec)
            except AudiogenError as error:
                self._give_up(f"no samples are made, because the codec cannot be used: {error}")
        return self._codec

    def _give_up(self, why: str) -> None:
        self._off = True
        log.warning("%s", why)

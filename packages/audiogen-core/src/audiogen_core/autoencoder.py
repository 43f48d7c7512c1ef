"""The interface of the continuous codecs: audio to latents and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from audiogen_core.border import check_audio, even, run_blocks, same_model
from audiogen_core.codes import Latents
from audiogen_core.errors import CodesError
from audiogen_core.noise import Noise
from audiogen_core.ops import Float, Ops
from audiogen_core.stages import Stage

if TYPE_CHECKING:
    from audiogen_core.audio import Audio


@dataclass(frozen=True)
class AutoencoderInfo:
    """The facts of an autoencoder.

    name             id written into `Latents.autoencoder`: as a codec's, hash and all
    sample_rate      Hz
    channels         of the audio
    hop_length       samples per frame
    latent_channels  of the latents
    """

    name: str
    sample_rate: int
    channels: int
    hop_length: int
    latent_channels: int

    @property
    def frame_rate(self) -> float:
        """Frames per second, Hz."""
        return self.sample_rate / self.hop_length

    def accepts(self, autoencoder: str) -> bool:
        """Whether latents marked `autoencoder` may be decoded here, by the rule of `CodecInfo.accepts`."""
        return same_model(self.name, autoencoder)


class Autoencoder:
    """A continuous codec: audio to latents and back.

    encoder       makes twice the latent channels: the mean of each latent and, before the softplus, its
                  standard deviation
    decoder       from the latent channels
    scale         latents are what the encoder makes divided by this
    chunk_frames  how much is worked off at a time: bounds the memory, changes no result
    """

    def __init__(
        self,
        info: AutoencoderInfo,
        ops: Ops,
        *,
        encoder: Sequence[Stage],
        decoder: Sequence[Stage],
        scale: float = 1.0,
        chunk_frames: int = 128,
    ) -> None:
        self.info = info
        self.ops = ops
        self.scale = scale
        self.chunk_frames = chunk_frames
        self._encoder = encoder
        self._decoder = decoder

    def encode(self, audio: Audio, noise: Noise | None = None) -> Latents:
        """The latents of a clip, in ceil(samples / hop_length) frames.

        noise  None gives the mean of each latent; else each is drawn, with one array of normal numbers of
               shape (1, latent_channels, frames)

        Raises AudioMismatch when rate or channels are not the autoencoder's, AudioError when the clip is
        empty.
        """
        info = self.info
        check_audio(audio, info)
        parts = np.concatenate(list(self._posterior([audio.samples])), axis=1)
        values, raw = parts[: info.latent_channels], parts[info.latent_channels :]
        if noise is not None:
            deviation = np.logaddexp(np.float32(0), raw) + np.float32(1e-4)
            values = values + deviation * noise.normal((1, *values.shape))[0]
        values = np.asarray(values / np.float32(self.scale), np.float32)
        return Latents(values, info.frame_rate, info.name, length=audio.samples.shape[1])

    def decode(self, latents: Latents) -> Audio:
        """The clip of some latents, trimmed to `latents.length` where that is known.

        Raises CodesError when the latents were made by another autoencoder or do not fit this one.
        """
        from audiogen_core.audio import Audio

        self.check(latents)
        samples = np.concatenate(list(self.decode_blocks([latents.values])), axis=1)
        return Audio(samples[:, : latents.length], self.info.sample_rate)

    def check(self, latents: Latents) -> None:
        """Raise CodesError unless these latents can be decoded here."""
        info = self.info
        if not info.accepts(latents.autoencoder):
            raise CodesError(
                f"the latents were made by {latents.autoencoder}; this autoencoder is {info.name}"
            )
        channels, frames = latents.values.shape
        if channels != info.latent_channels:
            raise CodesError(f"{info.name} has latents of {info.latent_channels} channels, got {channels}")
        if frames == 0:
            raise CodesError("the latents have no frames: there is nothing to decode")

    def encode_blocks(self, blocks: Iterable[Float]) -> Iterator[Float]:
        """Blocks (channels, samples) of one clip -> float32 blocks (latent_channels, frames): the means.

        However the clip is cut into blocks, the frames are those of the whole clip to float32 rounding.
        """
        for parts in self._posterior(blocks):
            yield parts[: self.info.latent_channels] / np.float32(self.scale)

    def decode_blocks(self, blocks: Iterable[Float]) -> Iterator[Float]:
        """Blocks of latents (latent_channels, frames) -> float32 blocks (channels, samples)."""
        scale = np.float32(self.scale)
        chunks = (
            (self.ops.signal(values[None] * scale), last)
            for values, last in even(blocks, self.chunk_frames, np.float32)
        )
        yield from run_blocks(self.ops, self._decoder, chunks)

    def _posterior(self, blocks: Iterable[Float]) -> Iterator[Float]:
        """(2 * latent_channels, frames): means and raw deviations."""
        size = self.chunk_frames * self.info.hop_length
        chunks = ((self.ops.signal(part[None]), last) for part, last in even(blocks, size, np.float32))
        yield from run_blocks(self.ops, self._encoder, chunks)

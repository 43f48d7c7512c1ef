"""Generating: from a checkpoint alone to codes and audio, whole, in batches, or as a stream."""

from __future__ import annotations

import copy
import math
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from audiogen_core.audio import Audio
from audiogen_core.codes import Codes
from audiogen_core.errors import AudioError, ModelError, OptionError
from audiogen_core.progress import counted
from audiogen_core.recipe import Recipe
from audiogen_core.sampling import Sampling
from audiogen_core.version import version
from audiogen_minigpt.config import SAMPLING, ModelConfig
from audiogen_minigpt.model import GPT
from audiogen_minigpt.sampling import continue_codes

if TYPE_CHECKING:
    from audiogen_core.codec import Codec
    from audiogen_core.ops import Ops

MAX_SECONDS = 3600.0
"""Seconds of audio made at once, unless it is streamed."""

BLOCK_SECONDS = 0.5
"""How often codes are handed on, in seconds of audio."""

OnStep = Callable[[int, int], None]
Ints = NDArray[np.int32]


class Generator:
    """A trained model with the codec it was trained on.

    model   its device is where generating happens
    codec   must be the one the model's codes came from
    facts   of the training data, as a checkpoint keeps them: "codec", "codec_hash", "codebook_size" and more
    name    of the model, for recipes
    sampling  how its codes are drawn unless somebody says otherwise

    Raises ModelError when the codec is not the one of the facts.
    """

    def __init__(
        self,
        model: GPT,
        config: ModelConfig,
        codec: Codec,
        facts: Mapping[str, Any],
        *,
        name: str = "",
        sampling: Sampling = SAMPLING,
    ) -> None:
        self.model = model
        self.config = config
        self.codec = codec
        self.facts = dict(facts)
        self.name = name
        self.sampling = sampling
        check_codec(codec, config, self.facts)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        device: str = "auto",
        ops: str | Ops | None = None,
        codec: str | Path | None = None,
        which: str = "last",
    ) -> Generator:
        """The model of a run or a checkpoint, with its codec.

        path    the folder of a run or of one checkpoint, or "demo", the model that comes with the package
        device  "auto" (CUDA where there is one), "cpu", "cuda", "mps"
        ops     what the codec runs on; None is torch on the same device
        codec   its name or path; None is the name the checkpoint gives
        which   of a run's checkpoints: "last", or "best" on the validation data

        Raises ModelError, UnknownModel, OptionError.
        """
        from audiogen_core import codecs
        from audiogen_minigpt import checkpoint
        from audiogen_minigpt.device import choose_device

        chosen = choose_device(device)
        model, config, facts = checkpoint.load_model(path, which=which, device=str(chosen))
        adapter = ops or ("torch:cuda" if chosen.type == "cuda" else "torch")
        loaded = codecs.load_codec(codec or str(facts.get("codec")), ops=adapter)
        return cls(model, config, loaded, facts, name=str(path), sampling=checkpoint.sampling_of(path))

    def generate(
        self,
        seconds: float,
        *,
        prompt_audio: Audio | None = None,
        sampling: Sampling | None = None,
        only_new: bool = False,
        on_step: OnStep | None = None,
    ) -> Audio:
        """A clip of `seconds`, or, with a prompt, the prompt and `seconds` that follow it.

        prompt_audio  sound to continue, at any rate; whole frames of it are used
        sampling      how codes are drawn; None is the model's own way. Without a seed one is drawn
        only_new      leave the prompt out of the result
        on_step       is called with (frames done, frames in all)

        The same options and seed make the same clip on the same kind of device, and a longer clip begins like
        a shorter one. Raises OptionError for impossible options, AudioError when the prompt is shorter than
        one frame.
        """
        codes = self._make(1, seconds, prompt_audio, sampling, on_step)[0]
        return self._audio(codes, seconds if only_new else None)

    def generate_codes(
        self,
        seconds: float,
        *,
        prompt_audio: Audio | None = None,
        sampling: Sampling | None = None,
        on_step: OnStep | None = None,
    ) -> Codes:
        """As `generate`, but the codes of the clip, the prompt's included."""
        return self._make(1, seconds, prompt_audio, sampling, on_step)[0]

    def generate_batch(
        self,
        count: int,
        seconds: float,
        *,
        prompt_audio: Audio | None = None,
        sampling: Sampling | None = None,
        only_new: bool = False,
        on_step: OnStep | None = None,
    ) -> list[Audio]:
        """Several clips; number i is what `generate` makes with the seed `sampling.seed + i`.

        On a CPU they are made one after the other, elsewhere all at once.
        """
        batch = self._make(count, seconds, prompt_audio, sampling, on_step)
        return [self._audio(codes, seconds if only_new else None) for codes in batch]

    def stream(
        self,
        seconds: float,
        *,
        prompt_audio: Audio | None = None,
        sampling: Sampling | None = None,
        only_new: bool = False,
        chunk_seconds: float = BLOCK_SECONDS,
        on_step: OnStep | None = None,
    ) -> Iterator[Audio]:
        """As `generate`, in chunks of about `chunk_seconds`, each as soon as it is made.

        Joined, the chunks are the whole clip. What is kept in memory is the codes alone.
        """
        if not chunk_seconds > 0:
            raise OptionError(f"chunk_seconds must be more than 0, got {chunk_seconds}")
        samples = self._samples(seconds)
        prompt = self._prompt(prompt_audio)
        seed = seeded(sampling or self.sampling).seed or 0
        report = counted(on_step, -(-samples // self.codec.info.hop_length))
        blocks = self._blocks(prompt, samples, sampling, [seed], chunk_seconds, report)
        opening = [prompt] if prompt.shape[1] else []
        codec = copy.copy(self.codec)
        codec.chunk_seconds = chunk_seconds
        known = prompt.shape[1] * codec.info.hop_length
        chunks = codec.decode_blocks(chain(opening, (block[0] for block in blocks)))
        return self._cut(chunks, known if only_new else 0, known + samples)

    def recipe(
        self,
        seconds: float,
        sampling: Sampling,
        *,
        only_new: bool = False,
        inputs: Mapping[str, str] | None = None,
    ) -> Recipe:
        """What made a clip, for `Audio.save`.

        inputs  sha256 of the files that went in, by role: "prompt_audio"
        """
        settings = {"seconds": seconds, "only_new": only_new, **sampling.to_dict()}
        settings.pop("seed")
        return Recipe(
            package="audiogen-minigpt",
            version=version("audiogen-minigpt"),
            model=self.name,
            revision=str(self.facts.get("checkpoint", "")),
            seed=sampling.seed,
            settings=settings,
            inputs=dict(inputs or {}),
        )

    def _make(
        self,
        count: int,
        seconds: float,
        prompt_audio: Audio | None,
        sampling: Sampling | None,
        on_step: OnStep | None,
    ) -> list[Codes]:
        """The codes of each clip, the prompt's included."""
        if count < 1:
            raise OptionError(f"at least 1 clip must be asked for, got {count}")
        samples, prompt = self._samples(seconds), self._prompt(prompt_audio)
        seed = seeded(sampling or self.sampling).seed or 0
        seeds = list(range(seed, seed + count))
        groups = [[each] for each in seeds] if self._device.type == "cpu" else [seeds]
        info, known = self.codec.info, prompt.shape[1] * self.codec.info.hop_length
        report = counted(on_step, count * -(-samples // info.hop_length))
        clips: list[Codes] = []
        for group in groups:
            blocks = list(self._blocks(prompt, samples, sampling, group, BLOCK_SECONDS, report))
            for row in np.concatenate(blocks, axis=2):
                values = np.concatenate([prompt, row], axis=1)
                length = known + samples
                clips.append(Codes(values, info.codebook_size, info.frame_rate, info.name, length))
        return clips

    def _audio(self, codes: Codes, last_seconds: float | None) -> Audio:
        audio = self.codec.decode(codes)
        if last_seconds is None:
            return audio
        return Audio(audio.samples[:, -self._samples(last_seconds) :], audio.sample_rate)

    def _blocks(
        self,
        prompt: Ints,
        samples: int,
        sampling: Sampling | None,
        seeds: list[int],
        block_seconds: float,
        report: Callable[[int], None],
    ) -> Iterator[Ints]:
        """New codes (B, K, n), block by block."""
        info = self.codec.info
        frames = -(-samples // info.hop_length)
        size = max(1, round(block_seconds * info.frame_rate))
        options = sampling or self.sampling
        for block in continue_codes(self.model, prompt.T.astype(np.int64), frames, seeds, options, size):
            report(len(seeds) * block.shape[1])
            yield block.transpose(0, 2, 1).astype(np.int32)  # (B, n, K) -> (B, K, n)

    @property
    def _device(self) -> torch.device:
        return self.model.wte.weight.device

    def _samples(self, seconds: float) -> int:
        if not (math.isfinite(seconds) and 0 < seconds <= MAX_SECONDS):
            raise OptionError(f"seconds must lie between 0 and {MAX_SECONDS:.0f}, got {seconds}")
        return max(1, round(seconds * self.codec.info.sample_rate))

    def _prompt(self, audio: Audio | None) -> Ints:
        """The codes (K, P) of the whole frames of a prompt; P = 0 without one."""
        info, count = self.codec.info, self.config.codebooks
        if audio is None:
            return np.zeros((count, 0), np.int32)
        audio = audio.resample(info.sample_rate).mix(info.channels)
        frames = audio.samples.shape[1] // info.hop_length
        if frames == 0:
            raise AudioError(
                f"the prompt has {audio.duration:.4f} s, which is less than a frame of {info.name} "
                f"({1 / info.frame_rate:.4f} s); give a longer one"
            )
        return self.codec.encode(audio, count).values[:, :frames]

    def _cut(self, chunks: Iterator[NDArray[np.float32]], start: int, stop: int) -> Iterator[Audio]:
        """The samples from start to stop of a clip that comes in chunks (channels, n)."""
        at = 0
        for chunk in chunks:
            part = chunk[:, max(0, start - at) : max(0, stop - at)]
            at += chunk.shape[1]
            if part.shape[1]:
                yield Audio(part, self.codec.info.sample_rate)


def seeded(sampling: Sampling | None) -> Sampling:
    """The same options with a seed: the given one, or a fresh one of 31 bits."""
    sampling = sampling or SAMPLING
    return sampling if sampling.seed is not None else replace(sampling, seed=secrets.randbits(31))


def check_codec(codec: Codec, config: ModelConfig, facts: Mapping[str, Any]) -> None:
    """Raise ModelError unless a model's codes, of data of these facts, are those of the codec."""
    from audiogen_core.codec import fingerprint

    info = codec.info
    wanted = facts.get("codec")
    known = facts.get("codec_hash")
    if wanted is not None and not info.accepts(str(wanted)):
        raise ModelError(f"the model was trained on codes of {wanted}, the codec given is {info.name}")
    if known and fingerprint(codec.codebook_vectors()) != known:
        raise ModelError(f"the model was trained on codes of another {info.name}: its codebooks differ")
    if config.codebook_size != info.codebook_size or config.codebooks > info.codebooks:
        raise ModelError(
            f"the model draws {config.codebooks} codebooks of {config.codebook_size}, but {info.name} has "
            f"{info.codebooks} of {info.codebook_size}"
        )

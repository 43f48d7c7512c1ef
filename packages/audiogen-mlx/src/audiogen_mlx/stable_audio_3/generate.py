"""From a prompt to sound: `StableAudio3`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from audiogen_core.audio import Audio
from audiogen_core.errors import OptionError
from audiogen_core.hub import asking
from audiogen_core.jobs import MOST, Take
from audiogen_core.lora import local
from audiogen_core.noise import Noise, SeededNoise
from audiogen_core.options import verb
from audiogen_core.progress import OnStep
from audiogen_core.values import closed
from audiogen_mlx import blas
from audiogen_mlx.device import use
from audiogen_mlx.memory import bounded_cache
from audiogen_mlx.nn import DTYPES
from audiogen_mlx.stable_audio import inpaint, loops, windows
from audiogen_mlx.stable_audio.conductor import Conductor, seeded
from audiogen_mlx.stable_audio.diffusion import Predict, Prediction, Task
from audiogen_mlx.stable_audio_3.config import Config
from audiogen_mlx.stable_audio_3.guidance import predictor
from audiogen_mlx.stable_audio_3.load import Parts, locate
from audiogen_mlx.stable_audio_3.lora import Asked, Lora
from audiogen_mlx.stable_audio_3.options import AnyLength, Batch, Load, Options
from audiogen_mlx.stable_audio_3.schedules import times
from audiogen_mlx.stable_audio_3.settings import Settings, resolve

Floats = NDArray[np.float32]

SNR_FLOOR = 1e-10  # of t and 1 - t, where dpmpp divides by them


@dataclass(frozen=True)
class Lengths:
    """How long the clips of a run are.

    frames   latent frames of the run
    valid    of which these are of a clip and what rings out after it
    samples  of each clip
    """

    frames: int
    valid: tuple[int, ...]
    samples: tuple[int, ...]


def lengths(config: Config, seconds: Sequence[float], padding: float, compat: str | None) -> Lengths:
    """The lengths of a run of clips of so many seconds, with so many after them.

    The network makes no more frames than those of a clip and its padding, as the original does on a GPU,
    where positions after them are taken out. On a CPU it leaves them in, and has a multiple of some frames.
    """
    rate, hop = config.sample_rate, config.hop_length
    rounded = int if compat == "upstream" else round
    samples = tuple(rounded(each * rate) for each in seconds)
    together = config.codec.together
    needed = [-(-each // hop) for each in samples]
    if compat == "runtime":
        frames = math.ceil(max(seconds) * rate / hop)
        frames = -(-frames // together) * together
        return Lengths(frames, (frames,) * len(samples), samples)
    after = int(padding * rate / hop)
    if compat == "upstream":
        frames = -(-int((max(seconds) + padding) * rate) // hop)
        frames = min(-(-frames // config.aligned) * config.aligned, config.frames)
    else:
        frames = max(needed) + after
        if after < together:  # the last frame of a segment hears the whole of it
            frames = -(-frames // together) * together
        frames = min(frames, config.frames)
    return Lengths(frames, tuple(min(each + after, frames) for each in needed), samples)


class StableAudio3(Conductor[Config, Parts]):
    """A model, ready to generate. Make one with `load`."""

    @classmethod
    @verb(Load)
    def load(cls, opening: Load) -> StableAudio3:
        """A model from the catalogue, a hub id or a path: a folder, or a checkpoint beside its configuration.

        Raises UnknownModel, DownloadError, ModelError, WeightsError or OptionError.
        """
        use(opening.device)
        threads = blas.set_threads(opening.threads)
        fetch = opening.fetch or asking(unlisted=opening.unlisted)
        adapters = local(opening.lora or (), fetch)
        files = locate(replace(opening, lora=adapters), fetch=fetch)
        config, dtype = files.read_config(), DTYPES[opening.dtype]
        parts = Parts(
            files,
            config,
            dtype=dtype,
            bits=opening.bits,
            frugal=opening.low_memory,
            loras=[Lora.read(Asked.of(each), opening.lora_off) for each in adapters],
            interval=opening.lora_interval,
        )
        parts.load()
        return cls(config, parts, str(opening.model), threads, opening)

    @verb(Options)
    def generate(self, options: Options) -> Audio:
        """A clip of exactly round(seconds * rate) samples, or with `bpm` and `bars` a loop.

        Raises OptionError for options that are out of range or contradict each other, AudioError for a
        clip that cannot be used.
        """
        return self.clip(options)

    @verb(Batch)
    def generate_latents(self, prompts: Sequence[str], options: Batch) -> Floats:
        """What the network makes of prompts, with what is after the end: (B, latent_channels, frames)."""
        _check_one_part(options)
        settings, seconds = self._resolved(prompts, options)
        with bounded_cache():
            plan = lengths(self.config, seconds, settings.padding, settings.compat)
            return self._latents(prompts, seconds, plan, settings)

    @verb(Batch)
    def generate_batch(self, prompts: Sequence[str], options: Batch) -> list[Audio]:
        """One clip per prompt, in one run where all are as long. Clip i is what its prompt gives alone with
        the seed + i, but for rounding.
        """
        return self._batch(prompts, options)

    @verb(Batch)
    @closed()
    def variations(self, prompt: str, count: int, options: Batch) -> list[Audio]:
        """Several clips of one prompt, with the seeds seed, seed + 1, ..."""
        if not 1 <= count <= MOST:
            raise OptionError(f"the number of variations must be from 1 to {MOST}, got {count}")
        return self._batch([prompt] * count, options)

    @verb(AnyLength)
    def generate_long(self, options: AnyLength) -> Audio:
        """As `stream`, in one clip."""
        return self.clip(options.within(self.config.max_seconds))

    @verb(AnyLength)
    def stream(self, options: AnyLength) -> Iterator[Audio]:
        """A clip of any length in pieces, each of them final, that joined are the clip.

        What the model makes at once is the clip of `generate`, in one piece. A longer one is made of parts
        that each continue the last `overlap` seconds of the one before, and memory does not grow with its
        length.
        """
        return self.pieces(options.within(self.config.max_seconds))

    @verb(Options)
    def generate_loop(self, options: Options) -> Audio:
        """A loop of exactly round(bars * beats_per_bar * 60 / bpm * rate) samples.

        It is cut from a clip that goes on after it: what follows its end is blended into its beginning.
        The tempo is not put into the prompt. Raises OptionError when the bars are more than the model makes.
        """
        if options.bpm is None or options.bars is None:
            raise OptionError("a loop needs both bpm and bars", "bpm", "bars")
        return self.clip(options)

    def takes(self, options: Options, count: int = 1, *, folder: Path | None = None) -> Iterator[Take]:
        """So many clips, as a command writes them: one after the other, with seeds that count up.

        `on_step` is called with (steps done, steps in all). Raises OptionError, AudioError.
        """
        for one in seeded(resolve(self.config, options), count):
            yield self._take(self._pieces(options.prompt, one), one)

    @verb(Batch)
    def settings(self, options: Batch) -> Settings:
        """Options with nothing left open, as they would be carried out. Raises OptionError."""
        return resolve(self.config, options)

    def check(self) -> dict[str, int]:
        """How many tensors of the network and the autoencoder were read, every one of them.

        Raises WeightsError for the first that is missing, misshapen, unexpected or not finite.
        """
        parts = self._parts
        parts.load()
        parts.autoencoder()
        parts.drop("autoencoder")
        return {"network_tensors": len(parts.tables.dit), "autoencoder_tensors": len(parts.tables.vae)}

    # What a run consists of

    def _take(self, pieces: Iterator[Audio], settings: Settings) -> Take:
        config = self.config
        return Take(
            pieces,
            config.sample_rate,
            config.channels,
            settings.asked,
            settings.seed,
            known=round(settings.continued * config.sample_rate),
            seconds=settings.seconds if settings.continued else None,
            closed=settings.loop is not None or (settings.known is not None and not settings.continued),
        )

    def _resolved(self, prompts: Sequence[str], options: Batch) -> tuple[Settings, list[float]]:
        """What all clips of a batch have in common, and the seconds of each. Raises OptionError."""
        if not isinstance(prompts, list | tuple) or not prompts:
            raise OptionError("give a list of one prompt or more")
        if options.durations is None:
            settings = resolve(self.config, options)
            return settings, [settings.seconds] * len(prompts)
        if len(options.durations) != len(prompts):
            raise OptionError(f"{len(options.durations)} durations for {len(prompts)} prompts; one for each")
        each = [resolve(self.config, replace(options, seconds=one)) for one in options.durations]
        return replace(each[0], seconds=max(one.seconds for one in each)), [one.seconds for one in each]

    def _pieces(self, prompt: str, settings: Settings) -> Iterator[Audio]:
        """A clip as it is written: one of several parts as it comes."""
        if settings.long:
            yield from self._long(prompt, settings)
            return
        yield from self._clips([prompt], [settings.seconds], settings)

    def _batch(self, prompts: Sequence[str], options: Batch) -> list[Audio]:
        _check_one_part(options)
        settings, seconds = self._resolved(prompts, options)
        said = {each.name: getattr(options, each.name) for each in fields(Batch)}
        alone = [Options.of({**said, "prompt": prompt}) for prompt in prompts]
        clips: list[Audio] = []
        for index, clip in enumerate(self._clips(prompts, seconds, settings)):
            seed = None if settings.seed is None else settings.seed + index
            told = replace(settings, asked={**settings.asked, "prompt": prompts[index]}, seed=seed)
            clips.append(self.whole(self._take(iter([clip]), told), alone[index]))
        return clips

    def _long(self, prompt: str, settings: Settings) -> Iterator[Audio]:
        """The pieces of a clip of several parts. They draw from one stream of noise."""

        def make(window: windows.Window, known: Audio | None, on_step: OnStep | None) -> Audio:
            one = replace(settings, known=known, exact=known is not None, on_step=on_step)
            (clip,) = self._clips([prompt], [(window.end - window.start) / self.config.sample_rate], one)
            return clip

        yield from self._windows(settings, settings.known, make)

    def _clips(self, prompts: Sequence[str], seconds: Sequence[float], settings: Settings) -> list[Audio]:
        config = self.config
        if len(set(seconds)) > 1 and settings.compat is None:  # each is as long as it is
            return [
                self._clips([prompt], [one], replace(settings, noise=_of_item(settings, index)))[0]
                for index, (prompt, one) in enumerate(zip(prompts, seconds, strict=True))
            ]
        with bounded_cache():
            plan = lengths(config, seconds, settings.padding, settings.compat)
            latents = self._latents(prompts, seconds, plan, settings)
            clips = [self._sound(latents[index], plan, index, settings) for index in range(len(prompts))]
            self._parts.drop("autoencoder")
        if settings.exact and settings.known is not None:
            clips = [self._with_kept_sound(clip, settings) for clip in clips]
        if settings.loop is not None:
            cut = settings.loop + min(round(loops.BLEND_SECONDS * config.sample_rate), settings.loop)
            clips = [loops.circular(clip[:, :cut], settings.loop) for clip in clips]
        return [Audio(clip, config.sample_rate) for clip in clips]

    def _latents(
        self, prompts: Sequence[str], seconds: Sequence[float], plan: Lengths, settings: Settings
    ) -> Floats:
        count, channels = len(prompts), self.config.dit.io_channels
        noise = settings.noise.normal((count, channels, plan.frames))
        start = self._encoded(settings.init_audio, 0.0, plan, settings)
        source = self._encoded(settings.known, settings.placed, plan, settings)
        mask = self._kept(seconds, plan, settings)
        texts = list(prompts)
        if settings.negative_prompt is not None:
            texts += [settings.negative_prompt] * count
        conditioning, *negative = self._parts.condition(texts, seconds)
        local = mx.zeros((1, 1 + channels, 1))
        if source is not None and mask is not None:
            local = mx.array(np.concatenate([mask[None], source * mask])[None])  # (1, 1 + C, T)
        valid = np.arange(plan.frames) < np.array(plan.valid)[:, None]
        predictors: dict[int, Predict] = {}  # by network: LoRAs may act at some times alone

        def predict(x: mx.array, t: float) -> Prediction:
            dit = self._parts.dit(t)
            if id(dit) not in predictors:
                predictors[id(dit)] = predictor(
                    dit,
                    conditioning,
                    settings.guidance,
                    plan.frames,
                    local=mx.broadcast_to(local, (count, *local.shape[1:])) if local.shape[2] > 1 else local,
                    negative=negative[0] if negative else None,
                    valid=None if valid.all() else mx.array(valid.astype(np.float32)),
                    shown=settings.compat == "runtime",
                )
            return predictors[id(dit)](x, t)

        moments = settings.times or times(settings.steps, settings.level, self.config.shift, plan.frames)
        task = Task(
            predict,
            mx.array(noise),
            lambda: mx.array(settings.noise.normal(noise.shape)),
            settings.steps,
            sigma_max=settings.level,
            init=None if start is None else mx.array(start)[None],
            times=[float(moment) for moment in moments],
            floor=SNR_FLOOR,
        )
        latents = self._sampled(settings.sampler, task, settings.on_step)
        predictors.clear()  # they hold the network, which may go before the autoencoder comes
        self._parts.drop("dit")
        made = np.array(latents)
        if settings.compat == "runtime" and source is not None and mask is not None:
            made = np.where(mask == 1, source, made)
        return made

    def _encoded(self, clip: Audio | None, placed: float, plan: Lengths, settings: Settings) -> Floats | None:
        """The latents (C, T) of a clip that begins `placed` seconds on, with silence around it."""
        if clip is None:
            return None
        config = self.config
        size, first = plan.frames * config.hop_length, round(placed * config.sample_rate)
        samples = inpaint.conformed(clip, config).samples[:, : size - first]
        samples = np.pad(samples, ((0, 0), (first, size - first - samples.shape[1])))
        autoencoder = self._parts.autoencoder()
        if settings.compat == "upstream":
            noise = settings.noise if settings.codec_noise else None
            return autoencoder.encode_as_original(samples, noise)[:, : plan.frames]
        return np.concatenate(list(autoencoder.encode_blocks([samples])), axis=1)[:, : plan.frames]

    def _kept(self, seconds: Sequence[float], plan: Lengths, settings: Settings) -> Floats | None:
        """1 for each latent frame that is kept, 0 where one is made: (T,); None without a clip."""
        if settings.known is None:
            return None
        config = self.config
        rate, hop = config.sample_rate, config.hop_length
        end = settings.placed + inpaint.conformed(settings.known, config).duration
        spans = [*settings.anew, (end, math.inf)]
        if settings.compat == "runtime":
            mask = np.ones(plan.frames, np.float32)
            for start, stop in spans:
                mask[round(start * rate / hop) : round(min(stop, max(seconds)) * rate / hop)] = 0
            return mask
        kept = np.ones(plan.frames * hop, np.float32)
        for start, stop in spans:
            kept[int(start * rate) : int(min(stop, max(seconds)) * rate)] = 0
        kept[int(max(seconds) * rate) :] = 0  # what rings out
        mask = kept[::hop].copy()
        if settings.compat is None and end < max(seconds):
            # A segment of latents that hears the silence after the clip is none of the clip.
            segment = hop * config.codec.together
            mask[int(end * rate) // segment * config.codec.together : math.ceil(end * rate / hop)] = 0
        return mask

    def _sound(self, latents: Floats, plan: Lengths, index: int, settings: Settings) -> Floats:
        """The sound of a clip (channels, samples), between -1 and 1."""
        autoencoder, hop, samples = self._parts.autoencoder(), self.config.hop_length, plan.samples[index]
        if settings.compat == "upstream":
            noise = settings.noise if settings.codec_noise else None
            sound = autoencoder.decode_as_original(latents, noise)
            sound[:, plan.valid[index] * hop :] = 0
        else:
            needed = min(latents.shape[1], -(-samples // hop) + autoencoder.reach)
            blocks = list(autoencoder.decode_blocks([latents[:, :needed]]))
            sound = np.concatenate(blocks, axis=1)
        return np.clip(sound[:, :samples], -1, 1)

    def _with_kept_sound(self, clip: Floats, settings: Settings) -> Floats:
        """What was to be kept is put back sample by sample, with a seam."""
        assert settings.known is not None
        config, length = self.config, clip.shape[1]
        first = round(settings.placed * config.sample_rate)
        known = inpaint.conformed(settings.known, config).samples[:, : length - first]
        anew = np.zeros(length, np.bool_)
        for start, stop in settings.anew:
            anew[round(start * config.sample_rate) : round(stop * config.sample_rate)] = True
        anew[first + known.shape[1] :] = True
        kept = np.pad(known, ((0, 0), (first, length - first - known.shape[1])))
        seam = round(inpaint.SEAM_SECONDS * config.sample_rate)
        return inpaint.splice(clip, kept, anew, seam)


def _check_one_part(options: Batch) -> None:
    """Refuse a clip of several parts where those of one are made. Raises OptionError."""
    if options.long:
        raise OptionError("clips of several parts are made by generate_long and stream")


def _of_item(settings: Settings, index: int) -> Noise:
    """The noise of one clip of a batch, as it would be alone."""
    return settings.noise if settings.seed is None else SeededNoise(settings.seed + index)

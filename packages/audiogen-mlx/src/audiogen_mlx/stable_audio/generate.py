"""From a prompt to sound: `StableAudio`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from audiogen_core import lora
from audiogen_core.audio import Audio
from audiogen_core.codes import Latents
from audiogen_core.errors import AudioError, OptionError, SoundWarning
from audiogen_core.hub import asking
from audiogen_core.jobs import MOST, Take
from audiogen_core.options import verb
from audiogen_core.progress import OnStep
from audiogen_core.values import closed
from audiogen_mlx import blas
from audiogen_mlx.device import use
from audiogen_mlx.memory import bounded_cache
from audiogen_mlx.nn import DTYPES
from audiogen_mlx.stable_audio import inpaint, loops, windows
from audiogen_mlx.stable_audio.conditioning import Conditioning
from audiogen_mlx.stable_audio.conductor import Conductor, seeded
from audiogen_mlx.stable_audio.config import Config
from audiogen_mlx.stable_audio.diffusion import Predict, Task
from audiogen_mlx.stable_audio.guidance import predictor
from audiogen_mlx.stable_audio.load import Parts, locate, locate_text
from audiogen_mlx.stable_audio.options import AnyLength, Batch, Load, Options
from audiogen_mlx.stable_audio.settings import Settings, resolve


class StableAudio(Conductor[Config, Parts]):
    """A model, ready to generate. Make one with `load`."""

    @classmethod
    @verb(Load)
    def load(cls, opening: Load) -> StableAudio:
        """A model from the catalogue, a hub id or a path: a folder of stable-audio-tools or of diffusers, a
        checkpoint or a `..._config.json` in the former.

        Raises UnknownModel, DownloadError, ModelError, WeightsError or OptionError.
        """
        use(opening.device)
        threads = blas.set_threads(opening.threads)
        fetch = opening.fetch or asking(unlisted=opening.unlisted)
        files = locate(opening.model, unlisted=opening.unlisted, fetch=fetch)
        adapters = [lora.read(lora.Asked.of(each)) for each in lora.local(opening.lora or (), fetch)]
        files = replace(files, adapters=tuple(adapters))
        config = files.read_config()
        text = locate_text(files, config, opening.t5, fetch=fetch)
        base = None if opening.base is None else locate(opening.base, unlisted=opening.unlisted, fetch=fetch)
        dtype = DTYPES[opening.dtype]
        parts = Parts(files, text, config, dtype=dtype, fetch=fetch, base=base, frugal=opening.low_memory)
        parts.load()
        return cls(config, parts, str(opening.model), threads, opening)

    @verb(Options)
    def generate(self, options: Options) -> Audio:
        """A clip of exactly round(seconds * rate) samples, or with `bpm` and `bars` a loop.

        Raises OptionError for options that are out of range or contradict each other, AudioError for a
        clip that cannot be used.
        """
        return self.clip(_as_it_comes(options))

    @verb(Options)
    def generate_latents(self, options: Options) -> Latents:
        """The latents of a clip: the model's whole window. `seconds` may be as long as the model can say."""
        _check_one_window(options)
        with bounded_cache():
            return self._latents([options.prompt], resolve(self.config, options))[0]

    @verb(Batch)
    def generate_batch(self, prompts: Sequence[str], options: Batch) -> list[Audio]:
        """One clip per prompt, in one run. Clip i is what its prompt gives alone with the seed + i, but for
        rounding: products of more rows are rounded otherwise, some millionths of full scale.
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
        return self.clip(_as_it_comes(options.within(self.config.window_seconds)))

    @verb(AnyLength)
    def stream(self, options: AnyLength) -> Iterator[Audio]:
        """A clip of any length in pieces, each of them final, that joined are the clip.

        What fits into the model's window is the clip of `generate`, in one piece. A longer one is made of
        windows that each continue the last `overlap` seconds of the one before, and memory does not grow
        with its length. A clip to continue, `prompt_audio`, may then be of any length and comes first; the
        other options of runs that begin from a clip raise OptionError.
        """
        return self.pieces(_as_it_comes(options.within(self.config.window_seconds)))

    @verb(Options)
    def generate_loop(self, options: Options) -> Audio:
        """A loop of exactly round(bars * beats_per_bar * 60 / bpm * rate) samples.

        It is cut from a clip that goes on after it: what follows its end is blended into its beginning.
        The tempo is not put into the prompt. Raises OptionError when the bars do not fit in the window.
        """
        if options.bpm is None or options.bars is None:
            raise OptionError("a loop needs both bpm and bars", "bpm", "bars")
        return self.clip(_as_it_comes(options))

    def takes(self, options: Options, count: int = 1, *, folder: Path | None = None) -> Iterator[Take]:
        """So many clips, as a command writes them: one after the other, with seeds that count up.

        `on_step` is called with (steps done, steps in all). Raises OptionError, AudioError.
        """
        self._check_window(options)
        for one in seeded(resolve(self.config, options), count):
            yield self._take(self._pieces(options, one), one)

    @verb(Batch)
    def settings(self, options: Batch) -> Settings:
        """Options with nothing left open, as they would be carried out. Raises OptionError."""
        return resolve(self.config, options)

    # What a run consists of

    def _take(self, pieces: Iterator[Audio], settings: Settings) -> Take:
        config = self.config
        return Take(
            pieces,
            config.sample_rate,
            config.channels,
            settings.asked,
            settings.seed,
            known=round(settings.known * config.sample_rate),
            seconds=settings.seconds if settings.known else None,
            closed=settings.loop is not None or settings.inpaint is not None,
        )

    def _pieces(self, options: Options, settings: Settings) -> Iterator[Audio]:
        """A clip as it is written: one of several windows as it comes, a single one as a whole."""
        if settings.long:
            yield from self._long(options.prompt, settings)
            return
        (clip,) = self._clips([options.prompt], settings)
        yield _within(clip, options)

    def _batch(self, prompts: Sequence[str], options: Batch) -> list[Audio]:
        said = {each.name: getattr(options, each.name) for each in fields(Batch)}
        if not isinstance(prompts, list | tuple) or not prompts:
            raise OptionError("give a list of one prompt or more")
        alone = [_as_it_comes(Options.of({**said, "prompt": prompt})) for prompt in prompts]
        _check_one_window(options)
        self._check_window(options)
        settings = resolve(self.config, options)
        clips: list[Audio] = []
        for index, clip in enumerate(self._clips(prompts, settings)):
            seed = None if settings.seed is None else settings.seed + index
            own = {"prompt": prompts[index], "normalize": alone[index].normalize}
            told = replace(settings, asked={**settings.asked, **own}, seed=seed)
            clips.append(self.whole(self._take(iter([clip]), told), alone[index]))
        return clips

    def _long(self, prompt: str, settings: Settings) -> Iterator[Audio]:
        """The pieces of a clip of several windows. They draw from one stream of noise."""
        config = self.config

        def make(window: windows.Window, known: Audio | None, on_step: OnStep | None) -> Audio:
            of_window = replace(
                settings,
                seconds=(window.end - window.start) / config.sample_rate,
                conditions=windows.place(config, window, settings.seconds, settings.conditions),
                init_audio=known,
                inpaint=None if known is None else ((known.duration, config.window_seconds),),
                on_step=on_step,
            )
            (clip,) = self._clips([prompt], of_window)
            return clip

        yield from self._windows(settings, settings.prompt_audio, make)

    def _clips(self, prompts: Sequence[str], settings: Settings) -> list[Audio]:
        with bounded_cache():
            latents = self._latents(prompts, settings)
            autoencoder = self._parts.autoencoder()
            clips = [self._with_kept_sound(autoencoder.decode(one), settings) for one in latents]
        if settings.loop is None:
            return clips
        return [Audio(loops.circular(clip.samples, settings.loop), clip.sample_rate) for clip in clips]

    def _latents(self, prompts: Sequence[str], settings: Settings) -> list[Latents]:
        config, count = self.config, len(prompts)
        shape = (count, config.dit.io_channels, config.frames)  # (B, C, T): a run is always a whole window
        noise = mx.array(settings.noise.normal(shape))
        known, mask = self._known(settings, count)
        conditioning, negative = self._conditioning(prompts, settings)
        beside = inpaint.beside(config, known if mask is not None else None, mask)
        predict = predictor(
            self._parts.dit(),
            conditioning,
            settings.guidance,
            config.frames,
            flow=config.flow,
            negative=negative,
            concat=beside if beside is None else mx.broadcast_to(beside, (count, *beside.shape[1:])),
        )
        start = known if settings.level is not None else None
        if known is not None and mask is not None and not config.inpaint:
            predict = inpaint.keeping(predict, known, mask, flow=config.flow)
            start = known if start is not None else known * mx.array(~mask)[None, None]
        final = self._sample(predict, noise, start, settings)
        del predict  # it holds the network, which may go before the autoencoder comes
        self._parts.drop("dit")
        info = self._parts.autoencoder().info
        length = min(round(settings.seconds * config.sample_rate), config.window)
        return [Latents(values, info.frame_rate, info.name, length=length) for values in np.array(final)]

    def _sample(
        self, predict: Predict, noise: mx.array, start: mx.array | None, settings: Settings
    ) -> mx.array:
        task = Task(
            predict,
            noise,
            lambda: mx.array(settings.noise.normal(noise.shape)),
            settings.steps,
            sigma_max=settings.sigma_max,
            sigma_min=settings.sigma_min,
            rho=settings.rho,
            init=start,
            # Upstream samples inpainting models on unshifted times, whatever their configuration says.
            shift=None if self.config.inpaint else self.config.shift,
        )
        return self._sampled(settings.sampler, task, settings.on_step)

    def _conditioning(
        self, prompts: Sequence[str], settings: Settings
    ) -> tuple[Conditioning, Conditioning | None]:
        texts = list(prompts)
        if settings.negative_prompt is not None:
            texts += [settings.negative_prompt] * len(prompts)
        seconds = {name: [value] * len(prompts) for name, value in settings.conditions.items()}
        conditioning, *negative = self._parts.condition(texts, seconds)
        return conditioning, negative[0] if negative else None

    def _known(self, settings: Settings, count: int) -> tuple[mx.array | None, NDArray[np.bool_] | None]:
        """The latents of init_audio, (B, C, T), and which frames are made anew; None without a clip."""
        if settings.init_audio is None:
            return None, None
        mask = None
        if settings.inpaint is not None:
            samples = inpaint.sample_mask(settings.inpaint, self.config)
            mask = inpaint.latent_mask(samples, self.config.frames)
        if settings.init_audio.duration > self.config.window_seconds + 1 / self.config.sample_rate:
            warnings.warn(
                f"the clip to begin from has {settings.init_audio.duration:.2f} s; the model takes the first "
                f"{self.config.window_seconds:.2f} s of it",
                SoundWarning,
                stacklevel=2,
            )
        clip, autoencoder = self._fitted(settings.init_audio), self._parts.autoencoder()
        if count == 1:
            latents = autoencoder.encode(clip, settings.noise).values[None]
        else:  # drawn anew for each item, though encoded only once
            mean = autoencoder.encode(clip).values
            deviation = autoencoder.encode(clip, _Ones()).values - mean
            latents = mean + deviation * settings.noise.normal((count, *mean.shape))
        self._parts.drop("autoencoder")
        return mx.array(latents), mask

    def _fitted(self, clip: Audio) -> Audio:
        """A clip at the model's rate and channels, cut or filled with silence to its window."""
        config = self.config
        samples = inpaint.conformed(clip, config).samples[:, : config.window]
        if samples.shape[1] < config.hop_length:
            raise AudioError(
                f"the clip to begin from has {samples.shape[1]} samples at {config.sample_rate} Hz; "
                f"it must have {config.hop_length} or more"
            )
        filled = np.pad(samples, ((0, 0), (0, config.window - samples.shape[1])))
        return Audio(filled, config.sample_rate)

    def _with_kept_sound(self, clip: Audio, settings: Settings) -> Audio:
        """What was to be kept is put back sample by sample, so it never went through the autoencoder."""
        if settings.inpaint is None or settings.init_audio is None:
            return clip
        mask = inpaint.sample_mask(settings.inpaint, self.config)[: clip.samples.shape[1]]
        kept = self._fitted(settings.init_audio).samples[:, : clip.samples.shape[1]]
        seam = round(inpaint.SEAM_SECONDS * self.config.sample_rate)
        return Audio(inpaint.splice(clip.samples, kept, mask, seam), clip.sample_rate)

    def _check_window(self, asked: Batch) -> None:
        config, seconds = self.config, asked.seconds
        if seconds is not None and not asked.long and round(seconds * config.sample_rate) > config.window:
            raise OptionError(
                f"this model makes {config.window_seconds:.2f} s at most, {seconds:g} s were asked for; "
                "long continues window after window",
                *("seconds", "long"),
            )


def _check_one_window(options: Batch) -> None:
    """Refuse a clip of several windows where the latents of one are made. Raises OptionError."""
    if options.long:
        raise OptionError("clips of several windows are made by generate_long and stream")


def _as_it_comes(options: Options) -> Options:
    """In Python a clip keeps its level, unless that is asked for; a recipe says so."""
    return replace(options, normalize=False) if options.normalize is None else options


def _within(clip: Audio, options: Batch) -> Audio:
    """A clip that is too loud made quieter, as 0.1.0 wrote it, where nothing else was asked for."""
    if options.normalize is not None or clip.peak <= 1:
        return clip
    return Audio(clip.samples / clip.peak, clip.sample_rate)


class _Ones:
    """A noise that is 1 everywhere: it shows the deviation of each latent."""

    def normal(self, shape: Sequence[int]) -> NDArray[np.float32]:
        return np.ones(tuple(shape), np.float32)

    uniform = exponential = normal

"""From a prompt to sound: `StableAudio`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Unpack

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from audiogen_core.audio import Audio
from audiogen_core.codes import Latents
from audiogen_core.errors import AudioError, ModelError, OptionError
from audiogen_core.progress import OnStep
from audiogen_mlx.memory import bounded_cache
from audiogen_mlx.stable_audio import inpaint, loops, windows
from audiogen_mlx.stable_audio.conditioning import Conditioning
from audiogen_mlx.stable_audio.config import SECONDS_START, SECONDS_TOTAL, Config
from audiogen_mlx.stable_audio.diffusion import SAMPLERS, Predict, Task
from audiogen_mlx.stable_audio.guidance import predictor
from audiogen_mlx.stable_audio.load import Fetch, Parts, fetch_from_hub, locate, locate_text
from audiogen_mlx.stable_audio.options import Options, Settings, resolve

DTYPES = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}


class StableAudio:
    """A model, ready to generate. Make one with `load`."""

    def __init__(self, config: Config, parts: Parts, name: str) -> None:
        self.config = config
        self.name = name
        self._parts = parts

    @cached_property
    def revision(self) -> str:
        """16 hex digits that change with the model's files."""
        return self._parts.files.fingerprint()

    @classmethod
    def load(
        cls,
        name_or_path: str | Path,
        *,
        dtype: str = "float32",
        t5: str | Path | None = None,
        base: str | Path | None = None,
        low_memory: bool | None = None,
        unlisted: bool = False,
        fetch: Fetch = fetch_from_hub,
    ) -> StableAudio:
        """A model from the catalogue, a hub id or a path.

        name_or_path  a folder of stable-audio-tools or of diffusers, a checkpoint or a `..._config.json`
                      in the former, or a name
        dtype         "float32", "float16" or "bfloat16", of the network and T5
        t5            the folder of its text encoder, where that is not beside the model
        base          the whole model, where the checkpoint holds a transformer alone
        low_memory    give each part back as soon as its work is done; None decides by the machine
        unlisted      allow hub ids that are not in the catalogue
        fetch         how models of the catalogue are fetched

        Raises UnknownModel, DownloadError, ModelError or WeightsError.
        """
        if dtype not in DTYPES:
            raise OptionError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
        files = locate(name_or_path, unlisted=unlisted, fetch=fetch)
        config = files.read_config()
        text = locate_text(files, config, t5, fetch=fetch)
        whole = None if base is None else locate(base, unlisted=unlisted, fetch=fetch)
        parts = Parts(files, text, config, dtype=DTYPES[dtype], base=whole, frugal=low_memory)
        parts.load()
        return cls(config, parts, str(name_or_path))

    def generate(self, prompt: str, *, seconds: float, **options: Unpack[Options]) -> Audio:
        """A clip of exactly round(seconds * rate) samples. Options are those of `Options`.

        Raises OptionError for options that are out of range or contradict each other, AudioError for a
        clip that cannot be used.
        """
        return self.generate_batch([prompt], seconds=seconds, **options)[0]

    def generate_latents(self, prompt: str, *, seconds: float, **options: Unpack[Options]) -> Latents:
        """The latents of a clip: the model's whole window. `seconds` may be as long as the model can say."""
        settings = self.settings(seconds, **options)
        with bounded_cache():
            return self._latents([prompt], settings)[0]

    def generate_batch(
        self, prompts: Sequence[str], *, seconds: float, **options: Unpack[Options]
    ) -> list[Audio]:
        """One clip per prompt, in one run. Clip i is what its prompt gives alone with the seed + i."""
        self._check_window(seconds)
        return self._clips(prompts, self.settings(seconds, **options))

    def variations(
        self, prompt: str, count: int, *, seconds: float, **options: Unpack[Options]
    ) -> list[Audio]:
        """Several clips of one prompt, with the seeds seed, seed + 1, ..."""
        if count < 1:
            raise OptionError(f"the number of variations must be 1 or more, got {count}")
        return self.generate_batch([prompt] * count, seconds=seconds, **options)

    def generate_long(
        self, prompt: str, *, seconds: float, overlap: float | None = None, **options: Unpack[Options]
    ) -> Audio:
        """As `stream`, in one clip."""
        pieces = [piece.samples for piece in self.stream(prompt, seconds=seconds, overlap=overlap, **options)]
        return Audio(np.concatenate(pieces, axis=1), self.config.sample_rate)

    def stream(
        self, prompt: str, *, seconds: float, overlap: float | None = None, **options: Unpack[Options]
    ) -> Iterator[Audio]:
        """A clip of any length: windows that each continue the last `overlap` seconds of the one before.

        It comes in pieces, each of them final, that joined are the clip; memory does not grow with its
        length. A clip to continue, `prompt_audio`, may be of any length and comes first. Raises
        OptionError, also for the other options of runs that begin from a clip.
        """
        config = self.config
        for name in ("init_audio", "inpaint", "init_noise_level"):
            if options.get(name) is not None:
                raise OptionError(f"{name} does not go with a clip of several windows; inpaint afterwards")
        prompt_audio, on_step = options.pop("prompt_audio", None), options.pop("on_step", None)
        known = None if prompt_audio is None else inpaint.conformed(prompt_audio, config)
        samples = round(seconds * config.sample_rate) if 0 < seconds < 1e6 else 0
        if samples < 1:
            raise OptionError(f"seconds must be above 0 (and below a million), got {seconds:g}")
        length = 0 if known is None else known.samples.shape[1]
        if known is not None and length >= samples:
            raise OptionError(f"prompt_audio is {known.duration:.2f} s long; ask for more seconds than that")
        plan = windows.plan(config, samples, overlap, length)
        # Resolved once: all windows draw from one stream of noise.
        settings = self.settings(min(seconds, config.max_seconds), **options)
        if known is not None:
            yield from _cut(known, 0, plan[0].start)
            known = Audio(known.samples[:, plan[0].start :], config.sample_rate)
        for index, window in enumerate(plan):
            of_window = replace(
                settings,
                seconds=(window.end - window.start) / config.sample_rate,
                conditions=windows.place(
                    config,
                    window,
                    seconds,
                    start=settings.conditions[SECONDS_START],
                    total=options.get(SECONDS_TOTAL),
                ),
                init_audio=known,
                inpaint=None if known is None else (known.duration, config.window_seconds),
                on_step=_counting_on(on_step, index * settings.steps, len(plan) * settings.steps),
            )
            clip = self._clips([prompt], of_window)[0]
            # What the next window hears is kept back: it comes out of that window, joined without a seam.
            until = plan[index + 1].start if index + 1 < len(plan) else window.end
            yield from _cut(clip, 0, until - window.start)
            known = next(_cut(clip, until - window.start, clip.samples.shape[1]), None)

    def generate_loop(
        self, prompt: str, *, bpm: float, bars: int, beats_per_bar: int = 4, **options: Unpack[Options]
    ) -> Audio:
        """A loop of exactly round(bars * beats_per_bar * 60 / bpm * rate) samples.

        It is cut from a clip that goes on after it: what follows its end is blended into its beginning.
        The tempo is not put into the prompt.

        Raises OptionError when the bars do not fit in the model's window.
        """
        config = self.config
        length = loops.loop_samples(bpm, bars, beats_per_bar, config.sample_rate)
        blend = min(round(loops.BLEND_SECONDS * config.sample_rate), length)
        if length + blend > config.window:
            longest = math.floor((config.window - blend) / config.sample_rate * bpm / 60 / beats_per_bar)
            advice = f"at most {longest}" if longest else "none; choose a faster tempo or fewer beats"
            raise OptionError(
                f"{bars} bars at {bpm:g} bpm last {length / config.sample_rate:.2f} s, more than the model's "
                f"{config.window_seconds:.2f} s; bars that fit: {advice}"
            )
        if options.get(SECONDS_TOTAL) is None:  # the music is not to end within the loop
            options[SECONDS_TOTAL] = config.max_seconds
        clip = self.generate(prompt, seconds=(length + blend) / config.sample_rate, **options)
        return Audio(loops.circular(clip.samples, length), config.sample_rate)

    def settings(self, seconds: float, **options: Unpack[Options]) -> Settings:
        """Options with nothing left open, as they would be carried out. Raises OptionError."""
        return resolve(self.config, float(seconds), options)

    def decode(self, latents: Latents) -> Audio:
        """The sound of latents. Raises CodesError when they were made by another autoencoder."""
        with bounded_cache():
            return self._parts.autoencoder().decode(latents)

    # What a run consists of

    def _clips(self, prompts: Sequence[str], settings: Settings) -> list[Audio]:
        with bounded_cache():
            latents = self._latents(prompts, settings)
            autoencoder = self._parts.autoencoder()
            return [self._with_kept_sound(autoencoder.decode(one), settings) for one in latents]

    def _latents(self, prompts: Sequence[str], settings: Settings) -> list[Latents]:
        if isinstance(prompts, str) or not prompts:
            raise OptionError("give a list of one prompt or more")
        for prompt in prompts:
            if not isinstance(prompt, str) or not prompt.strip():
                raise OptionError(f"the prompt is empty: say what to hear, got {prompt!r}")
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
        latents = noise
        for step in SAMPLERS[settings.sampler].run(task):
            latents = step.after
            mx.eval(latents)
            if settings.on_step is not None:
                settings.on_step(step.index + 1, settings.steps)
        if not mx.isfinite(latents).all().item():
            raise ModelError(
                f"{self.name}: sampling gave NaN or infinity; the weights are damaged, or overflow in this "
                "dtype: try float32"
            )
        return latents

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

    def _check_window(self, seconds: float) -> None:
        config = self.config
        samples = seconds * config.sample_rate
        if not 0.5 < samples < math.inf:
            raise OptionError(f"seconds must be above 0 and make a sample or more, got {seconds:g}")
        if round(samples) > config.window:
            raise OptionError(
                f"this model makes {config.window_seconds:.2f} s at most, {seconds:g} s were asked for; "
                "for more, generate_long (--long) continues window after window"
            )


def _cut(clip: Audio, start: int, end: int) -> Iterator[Audio]:
    """Samples [start, end) of a clip, or nothing where there are none."""
    if start < end:
        yield Audio(clip.samples[:, start:end], clip.sample_rate)


def _counting_on(on_step: OnStep | None, before: int, total: int) -> OnStep | None:
    """Steps of one window as steps of the whole clip."""
    return None if on_step is None else lambda done, _: on_step(before + done, total)


class _Ones:
    """A noise that is 1 everywhere: it shows the deviation of each latent."""

    def normal(self, shape: Sequence[int]) -> NDArray[np.float32]:
        return np.ones(tuple(shape), np.float32)

    uniform = exponential = normal

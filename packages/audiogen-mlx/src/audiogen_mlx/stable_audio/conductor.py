"""What the conductors of both generations of Stable Audio do alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar

import mlx.core as mx

from audiogen_core.audio import Audio
from audiogen_core.codec import Autoencoder
from audiogen_core.codes import Latents
from audiogen_core.errors import ModelError, OptionError
from audiogen_core.jobs import Model
from audiogen_core.noise import Noise, SeededNoise
from audiogen_core.progress import OnStep
from audiogen_core.values import closed
from audiogen_mlx.memory import bounded_cache
from audiogen_mlx.stable_audio import inpaint, windows
from audiogen_mlx.stable_audio.config import Bounds
from audiogen_mlx.stable_audio.diffusion import SAMPLERS, Task


class HasFiles(Protocol):
    """The files of a model."""

    def fingerprint(self) -> str: ...


class Loaded(Protocol):
    """The parts of a model, as far as both conductors have them in common."""

    @property
    def files(self) -> HasFiles: ...
    def autoencoder(self) -> Autoencoder: ...


class Drawn(Protocol):
    """Settings of a run that draws."""

    @property
    def seed(self) -> int | None: ...
    @property
    def noise(self) -> Noise: ...


class Long(Protocol):
    """Settings of a clip of several windows."""

    @property
    def seconds(self) -> float: ...
    @property
    def overlap(self) -> float | None: ...
    @property
    def steps(self) -> int: ...
    @property
    def on_step(self) -> OnStep | None: ...


Facts = TypeVar("Facts", bound=Bounds)
Parts = TypeVar("Parts", bound=Loaded)
Run = TypeVar("Run", bound=Drawn)

MakeWindow = Callable[[windows.Window, Audio | None, OnStep | None], Audio]
"""The sound of a window, out of what is known of its beginning."""


class Conductor(Model, Generic[Facts, Parts]):
    """A model of latents that a sampler makes and an autoencoder decodes."""

    def __init__(self, config: Facts, parts: Parts, name: str, threads: int, opening: Any = None) -> None:
        self.config = config
        self.name = name
        self.threads = threads
        self.opening = opening
        self._parts = parts

    @property
    def sample_rate(self) -> int:
        """Hz of what it makes."""
        return self.config.sample_rate

    @property
    def channels(self) -> int:
        """Of what it makes."""
        return self.config.channels

    @cached_property
    def revision(self) -> str:
        """16 hex digits that change with the model's files."""
        return self._parts.files.fingerprint()

    @closed()
    def decode(self, latents: Latents) -> Audio:
        """The sound of latents. Raises CodesError when they were made by another autoencoder."""
        with bounded_cache():
            return self._parts.autoencoder().decode(latents)

    def _sampled(self, sampler: str, task: Task, on_step: OnStep | None) -> mx.array:
        """What a sampler makes, step by step. Raises ModelError when that is not finite."""
        latents: mx.array = task.noise
        for step in SAMPLERS[sampler].run(task):
            latents = step.after
            mx.eval(latents)
            if on_step is not None:
                on_step(step.index + 1, task.steps)
        if not mx.isfinite(latents).all().item():
            raise ModelError(
                f"{self.name}: sampling gave NaN or infinity; the weights are damaged, or overflow in this "
                "dtype: try float32"
            )
        return latents

    def _windows(self, settings: Long, known: Audio | None, make: MakeWindow) -> Iterator[Audio]:
        """The pieces of a clip of several windows, which goes on with one that is known; or with none."""
        config = self.config
        known = None if known is None else inpaint.conformed(known, config)
        samples = round(settings.seconds * config.sample_rate)
        length = 0 if known is None else known.samples.shape[1]
        if known is not None and length >= samples:  # resampled, it may be a sample longer than it was
            raise OptionError(
                f"prompt_audio is {known.duration:.2f} s long; ask for more seconds than that",
                *("prompt_audio", "seconds"),
            )
        plan = windows.plan(config, samples, settings.overlap, length)
        if known is not None:
            yield from _cut(known, 0, plan[0].start)
            known = Audio(known.samples[:, plan[0].start :], config.sample_rate)
        for index, window in enumerate(plan):
            done, steps = index * settings.steps, len(plan) * settings.steps
            clip = make(window, known, _counting_on(settings.on_step, done, steps))
            # What the next window hears is kept back: it comes out of that window, joined without a seam.
            until = plan[index + 1].start if index + 1 < len(plan) else window.end
            yield from _cut(clip, 0, until - window.start)
            known = next(_cut(clip, until - window.start, clip.samples.shape[1]), None)


def seeded(settings: Run, count: int) -> Iterator[Run]:
    """The settings of so many runs, whose seeds count up."""
    for index in range(count):
        if settings.seed is None:
            yield settings
            continue
        seed = settings.seed + index
        one: Any = settings  # a dataclass, which a protocol cannot say
        yield replace(one, seed=seed, noise=SeededNoise(seed))


def _cut(clip: Audio, start: int, end: int) -> Iterator[Audio]:
    """Samples [start, end) of a clip, or nothing where there are none."""
    if start < end:
        yield Audio(clip.samples[:, start:end], clip.sample_rate)


def _counting_on(on_step: OnStep | None, before: int, total: int) -> OnStep | None:
    """Steps of one window as steps of the whole clip."""
    return None if on_step is None else lambda done, _: on_step(before + done, total)

"""From a prompt to music: how a run goes, whatever computes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from audiogen_core import patterns
from audiogen_core.audio import Audio
from audiogen_core.codes import Codes
from audiogen_core.errors import CodesError, OptionError
from audiogen_core.jobs import JobLoad, Model, Take
from audiogen_core.musicgen import melody as melodies
from audiogen_core.musicgen.conditioning import Conditioner, Item, Network, Tokens
from audiogen_core.musicgen.options import Batch, Defaults, Options, Settings, resolve
from audiogen_core.musicgen.windows import Window, plan
from audiogen_core.options import verb
from audiogen_core.values import closed, shown

if TYPE_CHECKING:
    from audiogen_core.codec import Codec
    from audiogen_core.progress import OnStep


class MusicGenBase(Model):
    """A MusicGen, ready to generate: everything but how it is loaded, which each package has of its own.

    bounded  a context that a run holds, which keeps the memory of what computes in bounds
    """

    bounded: Callable[[], AbstractContextManager[None]] = staticmethod(nullcontext)

    def __init__(
        self, parts: Network, name: str, threads: int, opening: JobLoad | None, defaults: Defaults
    ) -> None:
        self.config = parts.config
        self.name = name
        self.threads = threads
        self.opening = opening
        self.defaults = defaults
        self._parts = parts

    @property
    def codec(self) -> Codec:
        """The codec of its codes; that of a stereo model has the codebooks of both sides."""
        return self._parts.codec

    @property
    def sample_rate(self) -> int:
        """Hz of what it makes."""
        return self.codec.info.sample_rate

    @property
    def channels(self) -> int:
        """Of what it makes."""
        return self.codec.info.channels

    @verb(Options)
    def generate(self, options: Options) -> Audio:
        """A clip of exactly round(seconds * sample rate) samples. `prompt` None: music without a description.

        Raises OptionError for options out of range or that do not fit the model, AudioError for clips that
        cannot be used.
        """
        return self.clip(options)

    @verb(Options)
    def generate_codes(self, options: Options) -> Codes:
        """As `generate`, but the codes."""
        settings = self._resolved(options)
        return self._codes([options.prompt], settings, self._prompt_codes([options.prompt], settings))[0]

    @verb(Batch)
    def generate_batch(self, prompts: Sequence[str | None], options: Batch) -> list[Audio]:
        """One clip per prompt, in one run. Clip i is what its prompt gives alone with the seed + i."""
        settings = self._resolved(options)
        known = self._prompt_codes(prompts, settings)
        codes = self._codes(prompts, settings, known)
        clips: list[Audio] = []
        with self.bounded():
            for index, one in enumerate(codes):
                alone = _alone(options, prompts, index)
                told = replace(self._resolved(alone), seed=settings.seed + index)
                clips.append(self.whole(self._take(iter([self.codec.decode(one)]), told, known), alone))
        return clips

    @verb(Batch)
    def generate_codes_batch(self, prompts: Sequence[str | None], options: Batch) -> list[Codes]:
        """As `generate_batch`, but the codes."""
        settings = self._resolved(options)
        return self._codes(prompts, settings, self._prompt_codes(prompts, settings))

    @verb(Options)
    def stream(self, options: Options) -> Iterator[Audio]:
        """As `generate`, in pieces as they are made. Put together they are the whole, sample by sample.

        Memory does not grow with the length. Close the iterator to end early.
        """
        return self.pieces(options)

    def takes(self, options: Options, count: int = 1, *, folder: Path | None = None) -> Iterator[Take]:
        """So many clips, as a command writes them: streamed one after the other, with seeds that count up.

        `on_step` is called with (seconds done, seconds in all). Raises OptionError, AudioError.
        """
        settings = self._resolved(options)
        known = self._prompt_codes([options.prompt], settings)
        on_step = _in_seconds(settings.on_step, self.codec.info.frame_rate)
        for index in range(count):
            told = replace(settings, seed=settings.seed + index, on_step=on_step)
            pieces = self._streamed(self._frames([options.prompt], told, known), told)
            yield self._take(pieces, told, known)

    @verb(Batch)
    def settings(self, options: Batch) -> Settings:
        """Options with nothing left open, as they would be carried out. Raises OptionError."""
        return self._resolved(options)

    @closed()
    def decode(self, codes: Codes) -> Audio:
        """The sound of codes. Raises CodesError when another codec made them."""
        with self.bounded():
            return self.codec.decode(codes)

    # What a run consists of

    def _resolved(self, options: Batch) -> Settings:
        return resolve(self.config, self.codec.info.frame_rate, options, self.defaults)

    def _take(self, pieces: Iterator[Audio], settings: Settings, known: Tokens) -> Take:
        info, begun = self.codec.info, known.shape[2] * self.codec.info.hop_length
        seconds = settings.seconds if begun else None
        return Take(
            pieces, info.sample_rate, info.channels, settings.asked, settings.seed, None, begun, seconds
        )

    def _codes(self, prompts: Sequence[str | None], settings: Settings, known: Tokens) -> list[Codes]:
        with self.bounded():
            values = np.concatenate(list(self._frames(prompts, settings, known)), axis=2)
        info, samples = self.codec.info, self._samples(settings)
        return [Codes(one, info.codebook_size, info.frame_rate, info.name, samples) for one in values]

    def _samples(self, settings: Settings) -> int:
        """Samples of a clip: of its last frame as many as lie within the seconds asked for."""
        return round(settings.seconds * self.codec.info.sample_rate)

    def _streamed(self, frames: Iterator[Tokens], settings: Settings) -> Iterator[Audio]:
        left = self._samples(settings)
        with self.bounded():
            for block in self.codec.decode_blocks(values[0] for values in frames):
                if left:
                    yield Audio(block[:, :left], self.codec.info.sample_rate)
                left -= min(left, block.shape[1])

    def _frames(self, prompts: Sequence[str | None], settings: Settings, known: Tokens) -> Iterator[Tokens]:
        """The codes of all clips as they are made, from the beginning: blocks (B, K, frames)."""
        items = self._items(prompts, settings)
        if known.shape[2] >= settings.frames:
            begun = known.shape[2] / self.codec.info.frame_rate
            raise OptionError(
                f"the clip to continue has {begun:.2f} s, and {settings.seconds:g} s are asked for in all; "
                "ask for more seconds",
                "seconds",
            )
        windows = plan(settings.frames, known.shape[2], settings.window, settings.stride)
        return self._windows(items, known, windows, settings)

    def _windows(
        self, items: Sequence[Item], known: Tokens, windows: Sequence[Window], settings: Settings
    ) -> Iterator[Tokens]:
        conditioner = Conditioner(self._parts, items, settings)
        steps = [window.frames - window.prompt + max(self.config.delays) for window in windows]
        seeds = [settings.seed + index for index in range(len(items))]
        sampler = self._parts.sampler(settings.sampling, seeds, sum(steps))
        if known.shape[2]:
            yield known
        done, base = known.shape[2], 0
        recent = known  # the codes at the end of what is done
        rate = self.codec.info.frame_rate
        for index, window in enumerate(windows):
            prompt = recent[:, :, recent.shape[2] - window.prompt :]
            rows = conditioner.rows(window.start / rate if len(windows) > 1 else None)
            made = [prompt]
            run = _WindowRun(self.config.delays, self.config.special, prompt, window.frames)
            columns = self._parts.steps(rows, run.tokens, run.first, conditioner, sampler, base)
            with closing(columns):
                for block in run.blocks(columns):
                    made.append(block)
                    done += block.shape[2]
                    if settings.on_step is not None:
                        settings.on_step(done, settings.frames)
                    yield block
            recent, base = np.concatenate(made, axis=2), base + steps[index]

    def _items(self, prompts: Sequence[str | None], settings: Settings) -> list[Item]:
        count = len(prompts)
        tunes = _each(settings.melody, count, "melodies")
        styles = _each(settings.style, count, "styles")
        prepared = _once(lambda clip: melodies.prepare(clip, self.config.chroma))
        embedded = _once(lambda clip: self._style(clip, settings))
        return [
            Item(
                prompt,
                None if tune is None else prepared(tune),
                None if style is None else embedded(style),
            )
            for prompt, tune, style in zip(prompts, tunes, styles, strict=True)
        ]

    def _style(self, clip: Any, settings: Settings) -> Any:
        return self._parts.style(
            clip,
            eval_q=settings.style_codebooks,
            excerpt_seconds=settings.style_excerpt,
            start=settings.style_start,
        )

    def _prompt_codes(self, prompts: Sequence[str | None], settings: Settings) -> Tokens:
        """The codes all clips begin with: (B, K, frames), without frames when there are none."""
        check_prompts(prompts)
        count = len(prompts)
        if settings.prompt_codes is not None:
            codes = _each(settings.prompt_codes, count, "prompt_codes")
        elif settings.prompt_audio is not None:
            encode = _once(lambda clip: self._encode(clip, settings.keep_original is True))
            codes = [
                None if clip is None else encode(clip)
                for clip in _each(settings.prompt_audio, count, "clips")
            ]
        else:
            return np.zeros((count, self.config.codebooks, 0), np.int32)
        values = []
        for one in codes:
            if one is None:
                raise OptionError("either all clips of a batch continue one, or none")
            if not isinstance(one, Codes):
                raise OptionError(f"prompt_codes must be Codes, or one for each prompt; got {shown(one)}")
            self.codec.check(one)
            if one.codebooks != self.config.codebooks:
                raise CodesError(
                    f"the codes to continue have {one.codebooks} codebooks, not {self.config.codebooks}"
                )
            values.append(one.values)
        if len({one.shape for one in values}) > 1:
            raise OptionError(
                "the clips that a batch continues must have one length; trim them, or run them singly"
            )
        return np.stack(values)

    def _encode(self, clip: Audio | str | Path, to_the_end: bool) -> Codes:
        """The codes of a clip; `to_the_end`: of whole frames, the last of which ends where the clip does."""
        info = self.codec.info
        audio = clip if isinstance(clip, Audio) else Audio.load(clip)
        heard = audio.mix(info.channels).resample(info.sample_rate)
        spare = heard.samples.shape[1] % info.hop_length
        if to_the_end and spare < heard.samples.shape[1]:
            heard = Audio(heard.samples[:, spare:], info.sample_rate)
        return self.codec.encode(heard, codebooks=self.config.codebooks)


class _WindowRun:
    """One window: the tokens of all its steps, and the codes in them.

    tokens  (B, K, steps), `patterns.UNKNOWN` where one is to be drawn
    first   step that is to be drawn
    """

    def __init__(self, delays: Sequence[int], special: int, prompt: Tokens, frames: int) -> None:
        self.delays = delays
        self.first = prompt.shape[2] + 1
        laid = [patterns.template(frames, delays, special, prompt=one) for one in prompt]
        self.tokens = np.pad(np.stack(laid), ((0, 0), (0, 0), (1, 0)), constant_values=special)

    def blocks(self, columns: Iterator[Tokens]) -> Iterator[Tokens]:
        """Codes (B, K, frames) after the prompt, as the columns of tokens after it make them known."""
        ready, done = self.first - 1, self.first
        for column in columns:
            self.tokens[:, :, done : done + column.shape[2]] = column
            done += column.shape[2]
            end = done - 1 - max(self.delays)
            if end > ready:
                yield self._frames(ready, end)
                ready = end

    def _frames(self, start: int, stop: int) -> Tokens:
        """Frames of the clip, out of the delay pattern."""
        rows = [self.tokens[:, k, 1 + late + start : 1 + late + stop] for k, late in enumerate(self.delays)]
        return np.stack(rows, axis=1)


def _alone(options: Batch, prompts: Sequence[str | None], index: int) -> Options:
    """What gives one clip of a batch without the others."""
    said = {each.name: getattr(options, each.name) for each in fields(Batch)}
    clips = {
        name: _each(said[name], len(prompts), name)[index] for name in ("melody", "style", "prompt_audio")
    }
    return Options.of({**said, **clips, "prompt": prompts[index]})


def check_prompts(prompts: Sequence[str | None]) -> None:
    """Raise OptionError unless these are prompts, each a text or None."""
    if not isinstance(prompts, list | tuple) or not prompts:
        raise OptionError("give a list of one prompt or more")
    for prompt in prompts:
        if prompt is not None and (not isinstance(prompt, str) or not prompt.strip()):
            raise OptionError(f"the prompt is empty: say what to hear (None: anything), got {prompt!r}")


def _each(value: Any, count: int, name: str) -> list[Any]:
    """One value for every item: a list as it is, anything else for all. Raises OptionError."""
    if not isinstance(value, list | tuple):
        return [value] * count
    if len(value) != count:
        raise OptionError(
            f"there are {len(value)} {name} for {count} prompts; give one for each, or a single one"
        )
    return list(value)


def _in_seconds(on_step: OnStep | None, frame_rate: float) -> OnStep | None:
    """Steps told in frames, told on in seconds."""
    return None if on_step is None else lambda done, total: on_step(done / frame_rate, total / frame_rate)


def _once(function: Any) -> Any:
    """Calls a function once for each object it is given."""
    known: dict[int, Any] = {}

    def call(value: Any) -> Any:
        if id(value) not in known:
            known[id(value)] = function(value)
        return known[id(value)]

    return call

"""What the command is asked for: an `Order`, made into files, and found again in their recipes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audiogen_core.audio import Audio, AudioWriter
from audiogen_core.errors import AudioError, OptionError
from audiogen_core.progress import OnStep
from audiogen_core.recipe import Recipe, hash_file

if TYPE_CHECKING:
    from audiogen_mlx.stable_audio.generate import StableAudio
    from audiogen_mlx.stable_audio.options import Options

PACKAGE = "audiogen-mlx"
COMMAND = "stable-audio"

_INPUTS = ("init", "continued")
_SAMPLING = (
    "seconds_start", "seconds_total", "negative_prompt", "steps", "sampler", "guidance_scale",
    "guidance_rescale", "guidance_interval", "sigma_min", "sigma_max", "rho", "init_noise_level",
)  # fmt: skip
_RESOLVED = tuple(name for name in _SAMPLING if not name.startswith("seconds"))


@dataclass(frozen=True)
class Order:
    """One clip, a loop, or a clip of several windows. None leaves a choice to the model.

    seconds          of the clip; all that the model makes at once when None

    init, continued  files of a clip to begin from or inpaint, and of one to go on with
    inpaint          spans of seconds that are made anew
    bpm, bars        ask for a loop, in place of seconds
    long             several windows where one is too short
    """

    prompt: str
    model: str
    seed: int
    seconds: float | None = None
    seconds_start: float | None = None
    seconds_total: float | None = None
    negative_prompt: str | None = None
    steps: int | None = None
    sampler: str | None = None
    guidance_scale: float | None = None
    guidance_rescale: float | None = None
    guidance_interval: tuple[float, float] | None = None
    sigma_min: float | None = None
    sigma_max: float | None = None
    rho: float | None = None
    init: str | None = None
    init_noise_level: float | None = None
    inpaint: tuple[tuple[float, float], ...] | None = None
    continued: str | None = None
    bpm: float | None = None
    bars: int | None = None
    beats_per_bar: int = 4
    long: bool = False
    overlap: float | None = None
    dtype: str = "float32"
    t5: str | None = None
    base: str | None = None

    def __post_init__(self) -> None:
        if (self.bpm is None) != (self.bars is None):
            raise OptionError("a loop needs both bpm and bars")
        if self.bpm is not None and (self.seconds is not None or self.long):
            raise OptionError("a loop is as long as its bars; leave out seconds and long")
        if self.long and self.seconds is None:
            raise OptionError("long needs to know how long: give seconds")
        if self.overlap is not None and not self.long:
            raise OptionError("overlap is for clips of several windows; add long")

    def options(self) -> Options:
        """Options of the verbs, with files read. Raises AudioError."""
        given: dict[str, Any] = {name: getattr(self, name) for name in _SAMPLING}
        given |= {"seed": self.seed, "inpaint": None if self.inpaint is None else list(self.inpaint)}
        given["init_audio"] = None if self.init is None else Audio.load(self.init)
        given["prompt_audio"] = None if self.continued is None else Audio.load(self.continued)
        found: Options = {name: value for name, value in given.items() if value is not None}  # type: ignore[assignment]
        return found


def make(order: Order, model: StableAudio, output: Path, on_step: OnStep | None = None) -> float:
    """Carry an order out into a file with its recipe. Returns seconds of audio.

    A clip beyond full scale is made quieter as a whole; one of several windows is written as it comes,
    and clipped where it must be. Raises what `StableAudio.generate` and `Audio.save` raise.
    """
    if order.seconds is None and order.bpm is None:
        order = replace(order, seconds=model.config.max_seconds)
    options = order.options()
    options["on_step"] = on_step
    recipe = _recipe(order, model, options)
    if order.long:
        assert order.seconds is not None
        pieces = model.stream(order.prompt, seconds=order.seconds, overlap=order.overlap, **options)
        return _write(pieces, output, recipe, model.config.channels)
    if order.bpm is not None and order.bars is not None:
        clip = model.generate_loop(
            order.prompt, bpm=order.bpm, bars=order.bars, beats_per_bar=order.beats_per_bar, **options
        )
    else:
        assert order.seconds is not None
        clip = model.generate(order.prompt, seconds=order.seconds, **options)
    if clip.peak > 1:
        clip = Audio(clip.samples / clip.peak, clip.sample_rate)
    clip.save(output, recipe=recipe)
    return clip.duration


def _write(pieces: Iterator[Audio], output: Path, recipe: Recipe, channels: int) -> float:
    first = next(pieces)
    with AudioWriter(output, first.sample_rate, channels, recipe=recipe) as writer:
        writer.write(first.samples)
        for piece in pieces:
            writer.write(piece.samples)
        return float(writer.samples / first.sample_rate)


def _recipe(order: Order, model: StableAudio, options: Options) -> Recipe:
    from audiogen_core.version import version

    settings = {name: value for name, value in asdict(order).items() if value is not None}
    resolved = model.settings(min(order.seconds or 1.0, model.config.max_seconds), **options).facts()
    settings |= {name: resolved[name] for name in _RESOLVED if resolved[name] is not None}
    settings["command"] = COMMAND
    del settings["model"], settings["seed"]
    files = {name: getattr(order, name) for name in _INPUTS}
    return Recipe(
        package=PACKAGE,
        version=version(PACKAGE),
        model=order.model,
        revision=model.revision,
        seed=order.seed,
        settings=settings,
        inputs={name: hash_file(path) for name, path in files.items() if path is not None},
    )


def order_again(recipe: Recipe, moved: Mapping[str, str | None] | None = None) -> Order:
    """The order a recipe stands for.

    moved  where model, init, continued, t5 or base are now

    Raises AudioError when the recipe is of another command or damaged, or a file is not the one that
    went in; OptionError when something is said to have moved that cannot.
    """
    if recipe.package != PACKAGE or recipe.settings.get("command") != COMMAND or recipe.seed is None:
        raise AudioError(f"the recipe is not one of {PACKAGE} {COMMAND}")
    if unknown := sorted(set(moved or {}) - {"model", "t5", "base", *_INPUTS}):
        raise OptionError(f"nothing called {', '.join(unknown)} can have moved, only model, t5, base, inputs")
    values = {**recipe.settings, "model": recipe.model, "seed": recipe.seed}
    values |= {name: place for name, place in (moved or {}).items() if place is not None}
    del values["command"]
    known = {field.name for field in fields(Order)}
    if unknown := sorted(set(values) - known):
        raise AudioError(f"the recipe has settings of another version: {', '.join(unknown)}")
    if values.get("inpaint") is not None:
        values["inpaint"] = tuple((float(start), float(end)) for start, end in values["inpaint"])
    if values.get("guidance_interval") is not None:
        values["guidance_interval"] = tuple(values["guidance_interval"])
    try:
        order = Order(**values)
    except TypeError as error:
        raise AudioError(f"the recipe is damaged ({error})") from error
    for name in _INPUTS:
        path = getattr(order, name)
        if path is not None and hash_file(path) != recipe.inputs.get(name):
            raise AudioError(f"{path}: not the file that went in as {name}; its hash is another")
    return order

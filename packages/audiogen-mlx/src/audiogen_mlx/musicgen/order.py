"""What the command is asked for: an `Order`, made into a file, and found again in the file's recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audiogen_core.audio import Audio, AudioWriter
from audiogen_core.errors import AudioError, OptionError
from audiogen_core.progress import OnStep
from audiogen_core.recipe import Recipe, hash_file
from audiogen_core.sampling import Sampling
from audiogen_mlx.musicgen.options import Defaults

if TYPE_CHECKING:
    from audiogen_mlx.musicgen.generate import MusicGen
    from audiogen_mlx.musicgen.options import Options

PACKAGE = "audiogen-mlx"
COMMAND = "musicgen"

_INPUTS = ("melody", "style", "continued")
_PLACES = ("t5", "tokenizer", "codec", "mert")
_PASSED = (
    "seconds", "guidance_scale", "negative_prompt", "style_guidance", "style_codebooks", "style_excerpt",
    "style_start", "window_seconds", "stride_seconds",
)  # fmt: skip
_SAMPLING = ("temperature", "top_k", "top_p", "min_p")


@dataclass(frozen=True)
class Order:
    """One clip. A prompt of None asks for music without a description; None elsewhere for a default.

    melody, style, continued  files
    plain_style               text and style weigh alike
    t5, tokenizer, codec, mert  where parts of the model are that are not in its folder
    """

    prompt: str | None
    model: str
    seed: int
    seconds: float | None = None
    guidance_scale: float | None = None
    negative_prompt: str | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    melody: str | None = None
    style: str | None = None
    style_guidance: float | None = 5.0
    style_codebooks: int | None = None
    style_excerpt: float | None = None
    style_start: float | None = None
    continued: str | None = None
    window_seconds: float | None = None
    stride_seconds: float | None = None
    dtype: str | None = None
    bits: int | None = None
    t5: str | None = None
    tokenizer: str | None = None
    codec: str | None = None
    mert: str | None = None

    def options(self) -> Options:
        """Options of the verbs, with files read. Raises AudioError or OptionError."""
        filled = self.filled(Defaults())
        sampling = Sampling(**{name: getattr(filled, name) for name in _SAMPLING}, seed=self.seed)
        given: dict[str, Any] = {name: getattr(filled, name) for name in _PASSED}
        given |= {"sampling": sampling, "prompt_audio": _clip(self.continued)}
        given |= {"melody": _clip(self.melody), "style": _clip(self.style)}
        found: Options = given  # type: ignore[assignment]
        return found

    def filled(self, defaults: Defaults) -> Order:
        """With defaults in the place of what was not asked for."""
        missing = {name: value for name, value in asdict(defaults).items() if getattr(self, name) is None}
        if self.window_seconds is not None:
            missing.pop("stride_seconds", None)
        return replace(self, **missing)

    @property
    def places(self) -> dict[str, str | None]:
        """Where parts of the model are, for `MusicGen.load`."""
        return {name: getattr(self, name) for name in _PLACES}


def make(order: Order, model: MusicGen, output: Path, on_step: OnStep | None = None) -> float:
    """Carry an order out into a file with its recipe. Returns seconds of audio.

    The file is written as the music is made, and appears when it is whole. What is beyond full scale is
    clipped, with a warning. `on_step` is called with (seconds done, seconds in all).
    """
    order = order.filled(model.defaults)
    options = order.options()
    info = model.codec.info
    if on_step is not None:
        rate = info.frame_rate
        options["on_step"] = lambda done, total: on_step(done / rate, total / rate)
    recipe = _recipe(order, model)
    pieces = model.stream(order.prompt, **options)
    with AudioWriter(output, info.sample_rate, info.channels, recipe=recipe) as writer:
        for piece in pieces:
            writer.write(piece.samples)
        return float(writer.samples / info.sample_rate)


def order_again(recipe: Recipe, moved: Mapping[str, str | None] | None = None) -> Order:
    """The order a recipe stands for.

    moved  where model, melody, style, continued, t5, tokenizer, codec or mert are now

    Raises AudioError when the recipe is of another command or damaged, or a file is not the one that
    went in.
    """
    if recipe.package != PACKAGE or recipe.settings.get("command") != COMMAND or recipe.seed is None:
        raise AudioError(f"the recipe is not one of {PACKAGE} {COMMAND}")
    values = {**recipe.settings, "model": recipe.model, "seed": recipe.seed}
    values |= {name: place for name, place in (moved or {}).items() if place is not None}
    del values["command"]
    unknown = sorted(set(values) - {field.name for field in fields(Order)})
    if unknown:
        raise AudioError(f"the recipe has settings of another version: {', '.join(unknown)}")
    try:
        order = Order(**values)
    except TypeError as error:
        raise AudioError(f"the recipe is damaged ({error})") from error
    for name in _INPUTS:
        path = getattr(order, name)
        if path is not None and hash_file(path) != recipe.inputs.get(name):
            raise AudioError(f"{path}: not the file that went in as {name}; its hash is another")
    return order


def check_prompt(prompt: str | None, *, unconditional: bool, clips: bool) -> str | None:
    """The prompt, or None where that is meant. Raises OptionError when something to go by is missing."""
    if prompt is not None and unconditional:
        raise OptionError("give a prompt or --unconditional, not both")
    if prompt is not None and not prompt.strip():
        raise OptionError("the prompt is empty: say what to hear, or use --unconditional for anything")
    if prompt is None and not unconditional and not clips:
        raise OptionError("say what to hear, or use --unconditional for anything")
    return prompt


def _recipe(order: Order, model: MusicGen) -> Recipe:
    from audiogen_core.version import version

    settings = asdict(order)
    del settings["model"], settings["seed"]
    files = {name: getattr(order, name) for name in _INPUTS}
    return Recipe(
        package=PACKAGE,
        version=version(PACKAGE),
        model=order.model,
        revision=model.revision,
        seed=order.seed,
        settings={**settings, "command": COMMAND},
        inputs={name: hash_file(path) for name, path in files.items() if path is not None},
    )


def _clip(path: str | None) -> Audio | None:
    return None if path is None else Audio.load(path)

"""What the command is asked for: an `Order`, made into a file, and found again in its recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audiogen_core.audio import Audio, AudioWriter
from audiogen_core.errors import AudioError, OptionError
from audiogen_core.progress import OnStep
from audiogen_core.recipe import Recipe, hash_file
from audiogen_core.sampling import Sampling

if TYPE_CHECKING:
    from audiogen_mlx.musicgen.generate import MusicGen
    from audiogen_mlx.musicgen.options import Options

PACKAGE = "audiogen-mlx"
COMMAND = "musicgen"

LONGEST_PROMPT = 2000
"""Characters of a prompt beyond which the user is told how it will be read."""

WHOLE_SECONDS = 60.0
"""Clips up to this length are held in memory, so that one beyond full scale is made quieter as a whole."""

_INPUTS = ("melody", "style", "continued")


@dataclass(frozen=True)
class Order:
    """One clip.

    prompt                    None: music without a description
    melody, style, continued  files whose melody or style is followed, or that is gone on with
    style_guidance            weight of the text against the style; None: both weigh alike
    t5, tokenizer, codec, mert  where these parts are, when not where the checkpoint says
    """

    prompt: str | None
    model: str
    seed: int
    seconds: float = 10.0
    guidance_scale: float = 3.0
    negative_prompt: str | None = None
    temperature: float = 1.0
    top_k: int = 250
    top_p: float = 0.0
    melody: str | None = None
    style: str | None = None
    style_guidance: float | None = 5.0
    style_codebooks: int | None = None
    style_excerpt: float | None = None
    continued: str | None = None
    dtype: str = "float32"
    bits: int | None = None
    t5: str | None = None
    tokenizer: str | None = None
    codec: str | None = None
    mert: str | None = None

    def options(self) -> Options:
        """Options of the verbs. Raises OptionError."""
        sampling = Sampling(self.temperature, self.top_k, self.top_p, seed=self.seed)
        given: dict[str, Any] = {
            "seconds": self.seconds,
            "guidance_scale": self.guidance_scale,
            "negative_prompt": self.negative_prompt,
            "sampling": sampling,
            "melody": self.melody,
            "style": self.style,
            "style_guidance": self.style_guidance,
            "style_codebooks": self.style_codebooks,
            "style_excerpt": self.style_excerpt,
            "prompt_audio": self.continued,
        }
        kept = {"style_guidance", "seconds", "guidance_scale", "sampling"}
        found: Options = {name: value for name, value in given.items() if value is not None or name in kept}  # type: ignore[assignment]
        return found


def check_prompt(prompt: str) -> str | None:
    """What to warn of, or None. Raises OptionError when the prompt is blank."""
    if not prompt.strip():
        raise OptionError("the prompt is empty: say what to hear, for instance 'slow piano in C minor'")
    if len(prompt) > LONGEST_PROMPT:
        return (
            f"the prompt has {len(prompt)} characters; the model was trained on a sentence or two, and all "
            "of it is read, so the rest weighs little"
        )
    return None


def make(order: Order, model: MusicGen, output: Path, on_step: OnStep | None = None) -> float:
    """Carry an order out into a file with its recipe. Returns seconds of audio.

    on_step  is called with (seconds done, seconds in all)

    Raises what `MusicGen.generate` and `Audio.save` raise.
    """
    options = order.options()
    rate = model.codec.info.frame_rate
    if on_step is not None:
        report = on_step
        options["on_step"] = lambda done, total: report(done / rate, total / rate)
    recipe = _recipe(order, model)
    if order.seconds > WHOLE_SECONDS:
        return _write(model.stream(order.prompt, **options), output, recipe)
    clip = model.generate(order.prompt, **options)
    if clip.peak > 1:
        clip = Audio(clip.samples / clip.peak, clip.sample_rate)
    clip.save(output, recipe=recipe)
    return clip.duration


def _write(pieces: Iterator[Audio], output: Path, recipe: Recipe) -> float:
    first = next(pieces)
    with AudioWriter(output, first.sample_rate, first.channels, recipe=recipe) as writer:
        writer.write(first.samples)
        for piece in pieces:
            writer.write(piece.samples)
        return float(writer.samples / first.sample_rate)


def _recipe(order: Order, model: MusicGen) -> Recipe:
    from audiogen_core.version import version

    settings = {name: value for name, value in asdict(order).items() if value is not None}
    settings["style_guidance"] = order.style_guidance
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

    moved  where the model, its parts or its inputs are now

    Raises AudioError when the recipe is of another command or damaged, or a file is not the one that
    went in.
    """
    if recipe.package != PACKAGE or recipe.settings.get("command") != COMMAND or recipe.seed is None:
        raise AudioError(f"the recipe is not one of {PACKAGE} {COMMAND}")
    values = {"prompt": None, **recipe.settings, "model": recipe.model, "seed": recipe.seed}
    values |= {name: place for name, place in (moved or {}).items() if place is not None}
    del values["command"]
    known = {field.name for field in fields(Order)}
    if unknown := sorted(set(values) - known):
        raise AudioError(f"the recipe has settings of another version: {', '.join(unknown)}")
    order = Order(**values)
    for name in _INPUTS:
        path = getattr(order, name)
        if path is not None and hash_file(path) != recipe.inputs.get(name):
            raise AudioError(f"{path}: not the file that went in as {name}; its hash is another")
    return order

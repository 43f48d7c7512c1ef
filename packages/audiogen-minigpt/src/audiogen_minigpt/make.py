"""Files of generated sound: made with their recipes, and made again from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from audiogen_core.audio import Audio
from audiogen_core.errors import AudioError, ModelError, OptionError
from audiogen_core.recipe import Recipe, hash_file
from audiogen_core.sampling import Sampling
from audiogen_minigpt import checkpoint
from audiogen_minigpt.catalog import CATALOG, locate

PACKAGE = "audiogen-minigpt"

OnStep = Callable[[int, int], None]


@dataclass(frozen=True)
class Order:
    """What to make.

    model         folder of a run or a checkpoint, or a name of the catalogue
    seconds       of new sound
    sampling      with a seed
    prompt_audio  a file to go on with, or None
    only_new      leave the prompt out of the result
    codec         the codec's name or path; None: the one the model names
    """

    model: Path
    seconds: float
    sampling: Sampling
    prompt_audio: Path | None = None
    only_new: bool = False
    codec: str | None = None


def make(
    order: Order,
    outputs: list[Path],
    *,
    which: str = "last",
    device: str = "auto",
    on_step: OnStep | None = None,
) -> list[Audio]:
    """Make one clip for each output file, with seeds that count up from the order's, and write them.

    Raises what `Generator.load` and `Generator.generate` raise, and AudioError for a bad prompt.
    """
    checkpoint.place(order.model)  # a wrong name is told before seconds of importing
    from audiogen_minigpt.generate import Generator

    prompt = None if order.prompt_audio is None else Audio.load(order.prompt_audio)
    generator = Generator.load(order.model, device=device, codec=order.codec, which=which)
    clips = generator.generate_batch(
        len(outputs),
        order.seconds,
        prompt_audio=prompt,
        sampling=order.sampling,
        only_new=order.only_new,
        on_step=on_step,
    )
    inputs = {} if order.prompt_audio is None else {"prompt_audio": hash_file(order.prompt_audio)}
    files = {"prompt_audio": order.prompt_audio and str(order.prompt_audio), "codec": order.codec}
    for number, (audio, output) in enumerate(zip(clips, outputs, strict=True)):
        sampling = replace(order.sampling, seed=(order.sampling.seed or 0) + number)
        recipe = generator.recipe(order.seconds, sampling, only_new=order.only_new, inputs=inputs)
        audio.save(output, recipe=replace(recipe, settings={**recipe.settings, **files}))
    return clips


def order_again(
    file: Path, *, model: Path | None = None, prompt_audio: Path | None = None, codec: str | None = None
) -> Order:
    """The order that a generated file's recipe stands for.

    model, prompt_audio, codec  where they are now, when they were moved

    Raises AudioError without a recipe or with another prompt, ModelError when the checkpoint is gone,
    OptionError for the recipe of another program.
    """
    recipe = Recipe.read(file)
    if recipe.package != PACKAGE:
        raise OptionError(f"{file}: made by {recipe.package}; replay it with that program")
    settings = dict(recipe.settings)
    prompt = prompt_audio or (Path(settings["prompt_audio"]) if settings.get("prompt_audio") else None)
    if prompt is not None and hash_file(prompt) != recipe.inputs.get("prompt_audio"):
        raise AudioError(f"{prompt}: not the prompt {file} was made from; name that with --prompt-audio")
    try:
        heat = settings["temperature"]
        sampling = Sampling(heat, settings["top_k"], settings["top_p"], settings["min_p"], recipe.seed)
        seconds, only_new = float(settings["seconds"]), bool(settings["only_new"])
    except (KeyError, TypeError) as error:
        raise AudioError(f"{file}: its recipe lacks settings ({error})") from error
    return Order(
        model=_checkpoint_of(recipe, model),
        seconds=seconds,
        sampling=sampling,
        prompt_audio=prompt,
        only_new=only_new,
        codec=codec or settings.get("codec"),
    )


def _checkpoint_of(recipe: Recipe, model: Path | None) -> Path:
    """The checkpoint a recipe names, in the run it names or in another place."""
    place: Any = Path(recipe.model) if model is None else model
    for path in (place / checkpoint.FOLDER / recipe.revision, place):
        if path.name == recipe.revision and path.is_dir():
            return Path(path)
    if str(place) in CATALOG or (place / "state.json").is_file():
        if checkpoint.read(locate(place)).revision == recipe.revision:
            return Path(place)
        raise ModelError(
            f"{place}: its revision is not {recipe.revision}, which made this file; "
            "install the version that the recipe names"
        )
    raise ModelError(
        f"{place}: the checkpoint {recipe.revision} is not there any more; "
        "name a place that has it with --model"
    )

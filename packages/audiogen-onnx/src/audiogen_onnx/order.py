"""One run of the `vamp` command: what was asked for, its files, and the recipe that repeats it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiogen_core.audio import AudioWriter, check_rate
from audiogen_core.errors import AudioError, ModelError, OptionError
from audiogen_core.progress import OnStep
from audiogen_core.recipe import Recipe, hash_file
from audiogen_core.version import version
from audiogen_onnx.vampnet.clip import Clip, Made
from audiogen_onnx.vampnet.generate import Vampnet
from audiogen_onnx.vampnet.mask import Mask
from audiogen_onnx.vampnet.mask_file import load_mask
from audiogen_onnx.vampnet.options import VampOptions

PACKAGE = "audiogen-onnx"


@dataclass(frozen=True)
class Order:
    """What to make.

    audio        the file it is made from
    model        exported folder
    options      of the vamp
    seed         of the first variation
    mask         file that says where codes are made, or None
    sample_rate  of the result, Hz; None: the rate of the file
    """

    audio: Path
    model: str
    options: VampOptions
    seed: int
    mask: Path | None = None
    sample_rate: int | None = None

    def open(self, vampnet: Vampnet) -> Opened:
        """The file measured and encoded, its mask read. Raises AudioError, CodesError."""
        if self.sample_rate is not None:
            check_rate(self.sample_rate)
        clip = vampnet.open(self.audio, self.options)
        mask = None
        if self.mask is not None:
            info, layout = vampnet.codec.info, clip.layout
            mask = load_mask(
                self.mask,
                codebooks=layout.codebooks,
                frames=layout.frames,
                sample_rate=info.sample_rate,
                hop_length=info.hop_length,
            )
        return Opened(self, vampnet, clip, mask)


@dataclass(frozen=True, eq=False)
class Opened:
    """An order whose files were read."""

    order: Order
    vampnet: Vampnet
    clip: Clip
    mask: Mask | None

    @property
    def sample_rate(self) -> int:
        """Of the result, Hz."""
        return self.order.sample_rate or self.clip.source.sample_rate

    @property
    def seconds(self) -> float:
        """Of the result."""
        return self.clip.length(self.sample_rate) / self.sample_rate

    def make(self, count: int, on_step: OnStep | None = None) -> list[Made]:
        """So many variations, the one the networks were surest of first."""
        return self.clip.make(self.mask, self.order.seed, count, on_step)

    def chosen_mask(self) -> Mask:
        """The mask of the first variation."""
        return self.clip.mask(self.mask, self.order.seed)

    def save(self, made: Made, path: Path) -> None:
        """Decode a result into a file that carries its recipe; whole or not at all."""
        channels = self.clip.source.channels
        recipe = self.recipe(made)
        with AudioWriter(path, self.sample_rate, channels, recipe=recipe) as writer:
            for block in self.clip.sound(made, self.sample_rate, path.parent):
                writer.write(block)

    def recipe(self, made: Made) -> Recipe:
        """What makes this result again."""
        order = self.order
        inputs = {"audio": hash_file(order.audio)}
        settings: dict[str, Any] = {"audio": str(order.audio), "sample_rate": self.sample_rate}
        if order.mask is not None:
            inputs["mask"], settings["mask"] = hash_file(order.mask), str(order.mask)
        settings["options"] = order.options.to_dict()
        return Recipe(
            PACKAGE, version(PACKAGE), order.model, self.vampnet.revision, made.seed, settings, inputs
        )


def names_of(output: Path, count: int) -> list[Path]:
    """The files of several variations: take.wav becomes take-1.wav, take-2.wav, ..."""
    if count == 1:
        return [output]
    return [output.with_name(f"{output.stem}-{number}{output.suffix}") for number in range(1, count + 1)]


def order_again(
    file: Path, *, audio: Path | None = None, model: str | None = None, mask: Path | None = None
) -> tuple[Order, str]:
    """The order a file's recipe stands for, and the revision of the model it was made with.

    audio, model, mask  where they are now, when they were moved

    Raises AudioError without a recipe, or when an input is another file than it was; OptionError for the
    recipe of another program.
    """
    recipe = Recipe.read(file)
    if recipe.package != PACKAGE:
        raise OptionError(f"{file}: made by {recipe.package}; replay it with that program")
    try:
        settings = dict(recipe.settings)
        order = Order(
            audio=audio or Path(settings["audio"]),
            model=model or recipe.model,
            options=VampOptions.of(settings["options"]),
            seed=int(recipe.seed or 0),
            mask=mask or (Path(settings["mask"]) if settings.get("mask") else None),
            sample_rate=int(settings["sample_rate"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise AudioError(f"{file}: its recipe lacks settings ({error})") from error
    for name, path in (("audio", order.audio), ("mask", order.mask)):
        if path is not None and hash_file(path) != recipe.inputs.get(name):
            raise AudioError(f"{path}: not the {name} that {file} was made from; name that with --{name}")
    return order, recipe.revision


def check_revision(vampnet: Vampnet, revision: str) -> None:
    """Raise ModelError when this is not the model that a recipe names."""
    if vampnet.revision != revision:
        raise ModelError(
            f"{vampnet.name}: revision {vampnet.revision}, but the recipe names {revision}; name the folder "
            "it was made with by --model"
        )

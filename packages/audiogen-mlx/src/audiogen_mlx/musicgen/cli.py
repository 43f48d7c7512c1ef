"""The command `musicgen`, and how `replay` makes its files again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from audiogen_core import cli
from audiogen_core.cli import (
    DebugOption,
    DryRunOption,
    ForceOption,
    JsonOption,
    ModelOption,
    OfflineOption,
    OutputOption,
    PlayOption,
    QuietOption,
    SeedOption,
    option,
)
from audiogen_mlx.commands import check_revision, fetching, hint_at_blas, make_each

if TYPE_CHECKING:
    from audiogen_core.recipe import Recipe
    from audiogen_mlx.musicgen.generate import MusicGen
    from audiogen_mlx.musicgen.order import Order

DEFAULT_MODEL = "musicgen-small"


Number = float | None
Place = str | None

Prompt = Annotated[str | None, typer.Argument(metavar="PROMPT", help="What to hear.", show_default=False)]
Unconditional = Annotated[bool, option("unconditional", "Anything, without a prompt.")]
Seconds = Annotated[
    Number, option("seconds", "Length of the clip, with what is continued; 10 in most models.", "-s")
]
Guidance = Annotated[Number, option("guidance-scale", "Weight of the prompt; 1 is off; 3 in most models.")]
Negative = Annotated[str | None, option("negative-prompt", "What to stay away from.")]
Temperature = Annotated[
    Number, option("temperature", "Above 1: bolder; 0: always the likeliest; 1 in most models.")
]
TopK = Annotated[int | None, option("top-k", "Draw from so many tokens; 0 from all; 250 in most models.")]
TopP = Annotated[Number, option("top-p", "Draw from the likeliest with this share; 0 from all.")]
MinP = Annotated[Number, option("min-p", "Draw from tokens at least this likely beside the likeliest.")]
Melody = Annotated[Path | None, option("melody", "A clip whose melody is followed.", metavar="FILE")]
Style = Annotated[Path | None, option("style", "A clip whose style is followed.", metavar="FILE")]
StyleGuidance = Annotated[float, option("style-guidance", "Weight of the text against the style.")]
StyleBooks = Annotated[int | None, option("style-codebooks", "1 to 6: how closely the style binds.")]
StyleExcerpt = Annotated[Number, option("style-excerpt", "Seconds of the style that are heard.")]
StyleStart = Annotated[Number, option("style-start", "Second where they begin; else the middle.")]
Continue = Annotated[Path | None, option("continue", "A clip to go on with; it comes first.", metavar="FILE")]
Window = Annotated[Number, option("window", "Seconds made at once; as the model was trained when absent.")]
Stride = Annotated[Number, option("stride", "Seconds from window to window; 0.6 windows when absent.")]
Variations = Annotated[int, option("variations", "How many clips, with seeds that count up.", min=1)]
Dtype = Annotated[str | None, option("dtype", "float32, bfloat16 or float16; as stored when absent.")]
Bits = Annotated[int | None, option("bits", "4 or 8: quantise while loading.")]
T5 = Annotated[Place, option("t5", "Folder of the text encoder.", metavar="PATH")]
TokenizerPlace = Annotated[Place, option("tokenizer", "Its tokenizer.json.", metavar="PATH")]
CodecPlace = Annotated[Place, option("codec", "The codec.", metavar="NAME|PATH")]
Mert = Annotated[Place, option("mert", "Folder of the MERT that hears styles.", metavar="PATH")]
Unlisted = Annotated[bool, option("unlisted", "Allow hub ids outside the catalogue.")]


def register(app: typer.Typer) -> None:
    """Add the command to a command line."""
    app.command("musicgen")(musicgen)


def musicgen(
    output: OutputOption,
    prompt: Prompt = None,
    model: ModelOption = DEFAULT_MODEL,
    seconds: Seconds = None,
    unconditional: Unconditional = False,
    negative_prompt: Negative = None,
    guidance_scale: Guidance = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    melody: Melody = None,
    style: Style = None,
    style_guidance: StyleGuidance = 5.0,
    style_codebooks: StyleBooks = None,
    style_excerpt: StyleExcerpt = None,
    style_start: StyleStart = None,
    continued: Continue = None,
    window: Window = None,
    stride: Stride = None,
    variations: Variations = 1,
    seed: SeedOption = None,
    dtype: Dtype = None,
    bits: Bits = None,
    t5: T5 = None,
    tokenizer: TokenizerPlace = None,
    codec: CodecPlace = None,
    mert: Mert = None,
    unlisted: Unlisted = False,
    dry_run: DryRunOption = False,
    offline: OfflineOption = False,
    play: PlayOption = False,
    force: ForceOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Make music from a prompt, a melody, a style or a beginning, with MusicGen."""
    from audiogen_mlx.musicgen.order import Order, check_prompt

    outputs = cli.require_new_each(output, variations, force)
    clips = any(path is not None for path in (melody, style, continued))
    order = Order(
        prompt=check_prompt(prompt, unconditional=unconditional, clips=clips),
        model=model,
        seed=0 if dry_run and seed is None else cli.choose_seed(seed),
        seconds=seconds,
        guidance_scale=guidance_scale,
        negative_prompt=negative_prompt,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        melody=_text(melody),
        style=_text(style),
        style_guidance=style_guidance,
        style_codebooks=style_codebooks,
        style_excerpt=style_excerpt,
        style_start=style_start,
        continued=_text(continued),
        window_seconds=window,
        stride_seconds=stride,
        dtype=dtype,
        bits=bits,
        t5=t5,
        tokenizer=tokenizer,
        codec=codec,
        mert=mert,
    )
    order.options()  # mistakes in options and files are told before anything is fetched
    if dry_run:
        from audiogen_mlx.musicgen.estimate import estimate

        cli.emit(estimate(order, fetch=fetching(offline, quiet or json), unlisted=unlisted), json=json)
        return
    loaded = load(order, offline=offline, unlisted=unlisted, quiet=quiet or json)
    _make(order, loaded, outputs, quiet=quiet, json=json)


def replay(
    recipe: Recipe,
    output: Path,
    *,
    moved: dict[str, str | None] | None = None,
    offline: bool = False,
    quiet: bool = False,
    json: bool = False,
) -> None:
    """Make a file again from the recipe it carries; `moved` says where its model and inputs are now.

    Raises ModelError when the model is not the one that made the file, and what `order_again` raises.
    """
    from audiogen_mlx.musicgen.order import order_again

    order = order_again(recipe, moved)
    loaded = load(order, offline=offline, unlisted=True, quiet=quiet or json)
    check_revision(recipe, order.model, loaded.revision)
    _make(order, loaded, [output], quiet=quiet, json=json)


def load(order: Order, *, offline: bool, unlisted: bool, quiet: bool) -> MusicGen:
    """The model of an order, fetched with notice and progress where it must be."""
    from audiogen_mlx.musicgen.generate import MusicGen

    hint_at_blas()
    return MusicGen.load(
        order.model,
        dtype=order.dtype,
        bits=order.bits,
        unlisted=unlisted,
        fetch=fetching(offline, quiet),
        **order.places,
    )


def _make(order: Order, model: MusicGen, outputs: list[Path], *, quiet: bool, json: bool) -> None:
    from audiogen_mlx.musicgen.order import make

    make_each(
        order,
        outputs,
        lambda one, output, on_step: make(one, model, output, on_step),
        label="generating",
        unit="s of audio",
        quiet=quiet,
        json=json,
    )


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)

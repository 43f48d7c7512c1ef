"""The command `musicgen`, and how `replay` makes its files again."""

from __future__ import annotations

import shlex
import time as clock
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    QuietOption,
    SeedOption,
)
from audiogen_core.errors import ModelError

if TYPE_CHECKING:
    from audiogen_core.models import ModelSpec
    from audiogen_core.recipe import Recipe
    from audiogen_mlx.musicgen.generate import MusicGen
    from audiogen_mlx.musicgen.order import Order

DEFAULT_MODEL = "musicgen-small"


def _option(name: str, help: str, *others: str, **more: Any) -> Any:
    return typer.Option(f"--{name}", *others, help=help, **more)


Place = Path | None

Prompt = Annotated[str, typer.Argument(metavar="PROMPT", help="What to hear.")]
Seconds = Annotated[float, _option("seconds", "Length of the clip, up to an hour.", "-s")]
Guidance = Annotated[float, _option("guidance-scale", "Weight of the prompt; 1 is off.")]
Negative = Annotated[str | None, _option("negative-prompt", "What to stay away from; needs guidance.")]
Temperature = Annotated[float, _option("temperature", "0 takes the likeliest code.")]
TopK = Annotated[int, _option("top-k", "Draw from the k likeliest codes; 0: all.")]
TopP = Annotated[float, _option("top-p", "Draw from the likeliest codes with this much probability; 0: all.")]
Melody = Annotated[
    Place, _option("melody", "A clip whose melody is followed (melody models).", metavar="FILE")
]
Style = Annotated[Place, _option("style", "A clip whose style is followed (style model).", metavar="FILE")]
StyleGuidance = Annotated[float, _option("style-guidance", "Weight of the text against the style; 0: off.")]
StyleBooks = Annotated[
    int | None, _option("style-codebooks", "1 to 6: the fewer, the looser the hold. 3 when absent.")
]
StyleExcerpt = Annotated[
    float | None, _option("style-excerpt", "Seconds of the style that are heard. 3 when absent.")
]
Continue = Annotated[Place, _option("continue", "A clip to go on with; it comes first.", metavar="FILE")]
Variations = Annotated[int, _option("variations", "How many clips, with seeds that count up.", min=1)]
Dtype = Annotated[str, _option("dtype", "float32, float16 or bfloat16.")]
Bits = Annotated[int | None, _option("bits", "4 or 8: linear layers in so many bits.")]
T5 = Annotated[str | None, _option("t5", "Folder of the text encoder.", metavar="PATH")]
Tokenizer = Annotated[str | None, _option("tokenizer", "Its tokenizer.json.", metavar="PATH")]
CodecPlace = Annotated[str | None, _option("codec", "The codec's name or path.", metavar="NAME|PATH")]
Mert = Annotated[str | None, _option("mert", "Folder of the MERT that hears styles.", metavar="PATH")]
Unlisted = Annotated[bool, _option("unlisted", "Allow hub ids outside the catalogue.")]


def register(app: typer.Typer) -> None:
    """Add the command to a command line."""
    app.command("musicgen")(musicgen)


def musicgen(
    prompt: Prompt,
    output: OutputOption,
    model: ModelOption = DEFAULT_MODEL,
    seconds: Seconds = 10.0,
    guidance_scale: Guidance = 3.0,
    negative_prompt: Negative = None,
    temperature: Temperature = 1.0,
    top_k: TopK = 250,
    top_p: TopP = 0.0,
    melody: Melody = None,
    style: Style = None,
    style_guidance: StyleGuidance = 5.0,
    style_codebooks: StyleBooks = None,
    style_excerpt: StyleExcerpt = None,
    continued: Continue = None,
    variations: Variations = 1,
    seed: SeedOption = None,
    dtype: Dtype = "float32",
    bits: Bits = None,
    t5: T5 = None,
    tokenizer: Tokenizer = None,
    codec: CodecPlace = None,
    mert: Mert = None,
    unlisted: Unlisted = False,
    dry_run: DryRunOption = False,
    offline: OfflineOption = False,
    force: ForceOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Make music from a prompt with MusicGen."""
    from audiogen_mlx.musicgen.order import Order, check_prompt
    from audiogen_mlx.outputs import numbered

    outputs = [cli.require_new(path, force) for path in numbered(output, variations)]
    if warning := check_prompt(prompt):
        cli.note(f"warning: {warning}")
    order = Order(
        prompt=prompt,
        model=model,
        seed=0 if dry_run and seed is None else cli.choose_seed(seed),
        seconds=seconds,
        guidance_scale=guidance_scale,
        negative_prompt=negative_prompt,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        melody=_text(melody),
        style=_text(style),
        style_guidance=style_guidance or None,
        style_codebooks=style_codebooks,
        style_excerpt=style_excerpt,
        continued=_text(continued),
        dtype=dtype,
        bits=bits,
        t5=t5,
        tokenizer=tokenizer,
        codec=codec,
        mert=mert,
    )
    order.options()  # mistakes that need no model to be seen
    if dry_run:
        cli.emit(_plan(order, offline, unlisted), json=json)
        return
    loaded = _load(order, offline=offline, unlisted=unlisted, quiet=quiet or json)
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
    loaded = _load(order, offline=offline, unlisted=True, quiet=quiet or json)
    if recipe.revision and loaded.revision != recipe.revision:
        raise ModelError(
            f"{order.model}: not the model that made this file, its files differ; name the right one"
        )
    _make(order, loaded, [output], quiet=quiet, json=json)


def _make(order: Order, model: MusicGen, outputs: list[Path], *, quiet: bool, json: bool) -> None:
    """One file after the other: each is then the same as when it is made alone."""
    from dataclasses import replace

    from audiogen_mlx.musicgen.order import make

    for index, output in enumerate(outputs):
        one = replace(order, seed=order.seed + index)
        began = clock.monotonic()
        with cli.progress("generating", unit="s of audio", quiet=quiet or json) as on_step:
            seconds = make(one, model, output, on_step)
        again = f"audiogen-mlx replay {shlex.quote(str(output))} -o AGAIN{output.suffix}"
        took = clock.monotonic() - began
        cli.finished(output, seconds=seconds, took=took, seed=one.seed, replay=again, json=json)


def _load(order: Order, *, offline: bool, unlisted: bool, quiet: bool) -> MusicGen:
    from audiogen_core import hub
    from audiogen_mlx.musicgen.generate import MusicGen

    def fetch(spec: ModelSpec) -> Path:
        with cli.progress(f"fetching {spec.name}", unit="bytes", quiet=quiet) as on_step:
            return hub.fetch(spec, offline=offline or None, on_step=on_step, notify=cli.note)

    return MusicGen.load(
        order.model,
        dtype=order.dtype,
        bits=order.bits,
        t5=order.t5,
        tokenizer=order.tokenizer,
        codec=order.codec,
        mert=order.mert,
        unlisted=unlisted,
        fetch=fetch,
    )


def _plan(order: Order, offline: bool, unlisted: bool) -> dict[str, Any]:
    """What would be done: the settings, what would be fetched, how large the weights are."""
    from audiogen_core import hub
    from audiogen_core.formats.locate import locate
    from audiogen_core.models import find
    from audiogen_mlx.musicgen.catalog import MUSICGEN
    from audiogen_mlx.musicgen.loading import Files

    found = find(MUSICGEN, order.model, unlisted=unlisted)
    if not isinstance(found, Path):
        todo = hub.plan(found, offline=offline or None)
        if todo.wanted:
            return {
                "model": order.model,
                "license": found.license,
                "page": found.page,
                "download_bytes": todo.bytes,
                "download_to": str(todo.folder),
            }
        found = todo.folder
    files = Files(found)
    weight_bytes = sum(path.stat().st_size for path in locate(files.checkpoint).files)
    return {
        "model": order.model,
        "download_bytes": 0,
        "weight_bytes": weight_bytes,
        "layout": files.layout,
        "window_seconds": files.config.window_seconds,
        "prompt": order.prompt,
        "seconds": order.seconds,
        "guidance_scale": order.guidance_scale,
        "temperature": order.temperature,
        "top_k": order.top_k,
        "top_p": order.top_p,
    }


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)

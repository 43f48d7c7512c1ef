"""The command `stable-audio`, and how `replay` makes its files again."""

from __future__ import annotations

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
    PlayOption,
    QuietOption,
    SeedOption,
    option,
)
from audiogen_core.errors import OptionError
from audiogen_mlx.commands import check_revision, fetching, hint_at_blas, make_each

if TYPE_CHECKING:
    from audiogen_core.recipe import Recipe
    from audiogen_mlx.stable_audio.generate import StableAudio
    from audiogen_mlx.stable_audio.order import Order

DEFAULT_MODEL = "stable-audio-open-small"


Number = float | None
Place = Path | None

Prompt = Annotated[str, typer.Argument(metavar="PROMPT", help="What to hear.")]
Seconds = Annotated[
    Number, option("seconds", "Length of the clip; all the model makes at once when absent.", "-s")
]
Start = Annotated[Number, option("seconds-start", "Where in a longer piece it begins (1.0 only).")]
Total = Annotated[Number, option("seconds-total", "How long that piece is; the clip's length when absent.")]
Negative = Annotated[str | None, option("negative-prompt", "What to stay away from; needs guidance.")]
Steps = Annotated[int | None, option("steps", "Steps of the sampler; as published when absent.", min=1)]
SamplerName = Annotated[str | None, option("sampler", "Name of the sampler; as published when absent.")]
Guidance = Annotated[Number, option("guidance-scale", "Weight of the prompt; 1 is off.")]
Rescale = Annotated[Number, option("guidance-rescale", "Share of guidance's gain that is taken back.")]
Interval = Annotated[
    str | None,
    option("guidance-interval", "Noise levels between which guidance acts.", metavar="FROM:TO"),
]
SigmaMin = Annotated[Number, option("sigma-min", "Last noise level, for samplers of the v objective.")]
SigmaMax = Annotated[Number, option("sigma-max", "First noise level.")]
Init = Annotated[Place, option("init", "A clip to begin from, or to inpaint.", metavar="FILE")]
Level = Annotated[Number, option("init-noise-level", "How much of that clip is lost.")]
Inpaint = Annotated[
    list[str] | None, option("inpaint", "Seconds to make anew; may be repeated.", metavar="START:END")
]
Continue = Annotated[Place, option("continue", "A clip to go on with; it comes first.", metavar="FILE")]
Bpm = Annotated[Number, option("bpm", "Tempo of a loop.")]
Bars = Annotated[int | None, option("bars", "Bars of a loop.", min=1)]
Beats = Annotated[int, option("beats", "Beats in a bar.", min=1)]
Long = Annotated[bool, option("long", "Go beyond the model's window, each window continuing the last.")]
Overlap = Annotated[Number, option("overlap", "Seconds a window hears of the one before.")]
Variations = Annotated[int, option("variations", "How many clips, with seeds that count up.", min=1)]
Dtype = Annotated[str, option("dtype", "float32, float16 or bfloat16.")]
T5 = Annotated[str | None, option("t5", "Folder of the text encoder.", metavar="PATH")]
Base = Annotated[str | None, option("base", "Whole model, for a transformer alone.", metavar="NAME|PATH")]
LowMemory = Annotated[
    bool | None, typer.Option("--low-memory/--keep", help="Give parts back after use; decided when absent.")
]
Unlisted = Annotated[bool, option("unlisted", "Allow hub ids outside the catalogue.")]


def register(app: typer.Typer) -> None:
    """Add the command to a command line."""
    app.command("stable-audio")(stable_audio)


def stable_audio(
    prompt: Prompt,
    output: OutputOption,
    model: ModelOption = DEFAULT_MODEL,
    seconds: Seconds = None,
    seconds_start: Start = None,
    seconds_total: Total = None,
    negative_prompt: Negative = None,
    steps: Steps = None,
    sampler: SamplerName = None,
    guidance_scale: Guidance = None,
    guidance_rescale: Rescale = None,
    guidance_interval: Interval = None,
    sigma_min: SigmaMin = None,
    sigma_max: SigmaMax = None,
    init: Init = None,
    init_noise_level: Level = None,
    inpaint: Inpaint = None,
    continued: Continue = None,
    bpm: Bpm = None,
    bars: Bars = None,
    beats: Beats = 4,
    long: Long = False,
    overlap: Overlap = None,
    variations: Variations = 1,
    seed: SeedOption = None,
    dtype: Dtype = "float32",
    t5: T5 = None,
    base: Base = None,
    low_memory: LowMemory = None,
    unlisted: Unlisted = False,
    dry_run: DryRunOption = False,
    offline: OfflineOption = False,
    play: PlayOption = False,
    force: ForceOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Make sound from a prompt with Stable Audio Open."""
    from audiogen_mlx.stable_audio.order import Order

    outputs = cli.require_new_each(output, variations, force)
    order = Order(
        prompt=prompt,
        model=model,
        seed=0 if dry_run and seed is None else cli.choose_seed(seed),
        seconds=seconds,
        seconds_start=seconds_start,
        seconds_total=seconds_total,
        negative_prompt=negative_prompt,
        steps=steps,
        sampler=sampler,
        guidance_scale=guidance_scale,
        guidance_rescale=guidance_rescale,
        guidance_interval=None if guidance_interval is None else _span(guidance_interval),
        sigma_min=sigma_min,
        sigma_max=sigma_max,
        init=None if init is None else str(init),
        init_noise_level=init_noise_level,
        inpaint=tuple(_span(text) for text in inpaint) if inpaint else None,
        continued=None if continued is None else str(continued),
        bpm=bpm,
        bars=bars,
        beats_per_bar=beats,
        long=long,
        overlap=overlap,
        dtype=dtype,
        t5=t5,
        base=base,
    )
    if dry_run:
        cli.emit(_plan(order, offline, unlisted), json=json)
        return
    loaded = _load(order, offline=offline, unlisted=unlisted, low_memory=low_memory, quiet=quiet or json)
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
    from audiogen_mlx.stable_audio.order import order_again

    order = order_again(recipe, moved)
    loaded = _load(order, offline=offline, unlisted=True, low_memory=None, quiet=quiet or json)
    check_revision(recipe, order.model, loaded.revision)
    _make(order, loaded, [output], quiet=quiet, json=json)


def _make(order: Order, model: StableAudio, outputs: list[Path], *, quiet: bool, json: bool) -> None:
    from audiogen_mlx.stable_audio.order import make

    make_each(
        order,
        outputs,
        lambda one, output, on_step: make(one, model, output, on_step),
        label="sampling",
        unit="steps",
        quiet=quiet,
        json=json,
    )


def _load(
    order: Order, *, offline: bool, unlisted: bool, low_memory: bool | None, quiet: bool
) -> StableAudio:
    from audiogen_mlx.stable_audio.generate import StableAudio

    hint_at_blas()
    return StableAudio.load(
        order.model,
        dtype=order.dtype,
        t5=order.t5,
        base=order.base,
        low_memory=low_memory,
        unlisted=unlisted,
        fetch=fetching(offline, quiet),
    )


def _plan(order: Order, offline: bool, unlisted: bool) -> dict[str, Any]:
    """What would be done: the settings, what would be fetched, how much memory the weights take."""
    from audiogen_core import hub
    from audiogen_core.models import find
    from audiogen_mlx.stable_audio.catalog import CATALOG
    from audiogen_mlx.stable_audio.load import locate, locate_text, weight_bytes
    from audiogen_mlx.stable_audio.options import resolve

    found = find(CATALOG, order.model, unlisted=unlisted)
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
    files = locate(order.model, unlisted=unlisted)
    config = files.read_config()
    seconds = order.seconds or config.window_seconds
    settings = resolve(config, min(seconds, config.max_seconds), order.options())
    text = locate_text(files, config, order.t5)
    return {
        "model": order.model,
        "download_bytes": 0,
        "weight_bytes": weight_bytes(files, text),
        "window_seconds": config.window_seconds,
        **settings.facts(),
    }


def _span(text: str) -> tuple[float, float]:
    """Two numbers from "START:END"."""
    start, _, end = text.partition(":")
    try:
        return float(start), float(end)
    except ValueError as error:
        raise OptionError(f"expected START:END, two numbers, got {text!r}") from error

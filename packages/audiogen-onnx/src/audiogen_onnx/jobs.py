"""What the models of this package can be asked to do."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from audiogen_core.jobs import Job, Sound, Training
from audiogen_core.musicgen.options import Options as MusicGenOptions
from audiogen_onnx.magnet import options as magnet
from audiogen_onnx.musicgen import options as musicgen
from audiogen_onnx.vampnet.options import Asked, Load, Options

if TYPE_CHECKING:
    from audiogen_onnx.vampnet.generate import Vampnet


def estimate(load: Load, options: Asked, *, offline: bool) -> dict[str, Any]:
    """What a run would do; for a model that is yet to be fetched or exported, only what that takes.

    Raises DownloadError when it is not here and may not be asked for.
    """
    from audiogen_core import hub, lora
    from audiogen_onnx.exporter.export import to_fetch

    first = to_fetch(load.model, offline=offline, unlisted=load.unlisted)
    missing: list[hub.Plan] = []
    policy = hub.Policy(offline=offline, listed=not load.unlisted, notify=warnings.warn)
    lora.local(load.lora or (), hub.planning(policy, missing))
    if missing and first is None:
        of_first = missing[0].spec
        first = {
            "model": load.model,
            "license": of_first.license,
            "page": of_first.page,
            "download_bytes": sum(todo.bytes for todo in missing),
            "download_to": str(missing[0].folder),
        }
    return first or plan(VAMP.open_with(load), load, options)


def sound(load: Load, options: Asked) -> Sound:
    """What a run makes: it is of the clip that goes in."""
    from audiogen_core.audio import Audio, probe

    clip, chosen = options.audio, options.chosen()
    made = chosen.get("outpaint_left", 0.0) + chosen.get("outpaint_right", 0.0)
    if isinstance(clip, Audio):
        rate, channels, seconds = clip.sample_rate, clip.channels, clip.duration
    else:
        info = probe(clip)
        rate, channels, seconds = info.sample_rate, info.channels, info.frames / info.sample_rate
    longer = seconds * chosen.get("time_stretch_factor", 1)
    return Sound(rate, channels, longer + made)


def plan(vampnet: Vampnet, load: Load, options: Asked) -> dict[str, Any]:
    """What a run of a model that is open would do."""
    clip, own = vampnet.prepared(options)
    mask = clip.mask(own, options.seed or 0)
    rate, channels = options.sample_rate or clip.source.sample_rate, clip.source.channels
    return {
        "model": load.model,
        "seconds": round(clip.length(rate) / rate, 3),
        "sample_rate": rate,
        "channels": channels,
        "frames": clip.layout.frames,
        "made": f"{mask.mean():.1%} of the codes",
        "steps": vampnet.pair.steps(mask[None], clip.options) * channels,
        "options": clip.options.asked(),
    }


VAMP = Job(
    name="vamp",
    title="VampNet",
    summary="New sound out of a clip: of its length and loudness, around what is kept of it.",
    package="audiogen-onnx",
    load=Load,
    options=Options,
    conductor="audiogen_onnx.vampnet.generate:Vampnet",
    catalog="audiogen_onnx.catalog:CATALOG",
    estimate="audiogen_onnx.jobs:estimate",
    sound="audiogen_onnx.jobs:sound",
    label="making",
    unit="steps",
    together=True,
)

TUNE = Training(
    name="tune-vampnet",
    title="Tune",
    summary="Teach a VampNet the sound of your clips: a small adapter, for the tab of VampNet.",
    package="audiogen-onnx",
    job="vamp",
    module="audiogen_onnx",
    verb="tune",
    options="audiogen_onnx.vampnet.tune_options:plain",
    diary="audiogen_core.training.metrics:read",
    adapter="adapter",
)

MUSICGEN = Job(
    name="musicgen",
    title="MusicGen",
    summary="Make music from a prompt, a melody, a style or a beginning, with MusicGen on any processor.",
    package="audiogen-onnx",
    load=musicgen.Load,
    options=MusicGenOptions,
    conductor="audiogen_onnx.musicgen.generate:MusicGen",
    catalog="audiogen_onnx.catalog:MUSICGEN",
    estimate="audiogen_onnx.musicgen.estimate:estimate",
    sound="audiogen_onnx.musicgen.estimate:sound",
)

MAGNET = Job(
    name="magnet",
    title="MAGNeT",
    summary="Make music or sound from a prompt with MAGNeT, all frames of a clip at once.",
    package="audiogen-onnx",
    load=magnet.Load,
    options=magnet.Options,
    conductor="audiogen_onnx.magnet.generate:Magnet",
    catalog="audiogen_onnx.catalog:MAGNET",
    estimate="audiogen_onnx.magnet.estimate:estimate",
    sound="audiogen_onnx.magnet.estimate:sound",
    label="making",
    unit="passes",
)

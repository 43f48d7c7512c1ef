"""What the models of this package can be asked to do."""

from __future__ import annotations

from audiogen_core.jobs import Job
from audiogen_mlx.musicgen import options as musicgen
from audiogen_mlx.stable_audio import options as stable_audio

MUSICGEN = Job(
    name="musicgen",
    title="MusicGen",
    summary="Make music from a prompt, a melody, a style or a beginning, with MusicGen.",
    package="audiogen-mlx",
    load=musicgen.Load,
    options=musicgen.Options,
    conductor="audiogen_mlx.musicgen.generate:MusicGen",
    catalog="audiogen_mlx.catalog:MUSICGEN",
    estimate="audiogen_mlx.musicgen.estimate:estimate",
    sound="audiogen_mlx.musicgen.estimate:sound",
    advice="audiogen_mlx.blas:advice",
    renamed={"continued": "prompt_audio"},
)

STABLE_AUDIO = Job(
    name="stable-audio",
    title="Stable Audio",
    summary="Make sound from a prompt with Stable Audio Open.",
    package="audiogen-mlx",
    load=stable_audio.Load,
    options=stable_audio.Options,
    conductor="audiogen_mlx.stable_audio.generate:StableAudio",
    catalog="audiogen_mlx.catalog:STABLE_AUDIO",
    estimate="audiogen_mlx.stable_audio.load:estimate",
    sound="audiogen_mlx.stable_audio.load:sound",
    advice="audiogen_mlx.blas:advice",
    label="sampling",
    unit="steps",
    renamed={"init": "init_audio", "continued": "prompt_audio"},
)

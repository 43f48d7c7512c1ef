"""What the models of this package can be asked to do."""

from __future__ import annotations

from audiogen_core.jobs import Job
from audiogen_mlx.musicgen import options as musicgen

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
    advice="audiogen_mlx.blas:advice",
    renamed={"continued": "prompt_audio"},
)

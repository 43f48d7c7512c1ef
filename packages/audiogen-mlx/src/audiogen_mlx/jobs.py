"""What the models of this package can be asked to do."""

from __future__ import annotations

from audiogen_core.jobs import Job, Training
from audiogen_core.musicgen.options import Options as MusicGenOptions
from audiogen_mlx.musicgen.options import Load as MusicGenLoad
from audiogen_mlx.stable_audio import options as stable_audio
from audiogen_mlx.stable_audio_3 import options as stable_audio_3

MUSICGEN = Job(
    name="musicgen",
    title="MusicGen",
    summary="Make music from a prompt, a melody, a style or a beginning, with MusicGen.",
    package="audiogen-mlx",
    load=MusicGenLoad,
    options=MusicGenOptions,
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

STABLE_AUDIO_3 = Job(
    name="stable-audio-3",
    title="Stable Audio 3",
    summary="Make music and sound from a prompt, or out of a clip, with Stable Audio 3.",
    package="audiogen-mlx",
    load=stable_audio_3.Load,
    options=stable_audio_3.Options,
    conductor="audiogen_mlx.stable_audio_3.generate:StableAudio3",
    catalog="audiogen_mlx.catalog:STABLE_AUDIO_3",
    estimate="audiogen_mlx.stable_audio_3.load:estimate",
    sound="audiogen_mlx.stable_audio_3.load:sound",
    advice="audiogen_mlx.blas:advice",
    label="sampling",
    unit="steps",
)

TUNE = Training(
    name="tune",
    title="Tune",
    summary="Teach a MusicGen the sound of your clips: a small adapter, for the tab of MusicGen.",
    package="audiogen-mlx",
    job="musicgen",
    module="audiogen_mlx",
    verb="tune",
    options="audiogen_mlx.musicgen.tune_options:plain",
    diary="audiogen_core.training.metrics:read",
    adapter="adapter",
    captions=True,
)

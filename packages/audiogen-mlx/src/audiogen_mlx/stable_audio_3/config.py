"""The facts of a Stable Audio 3, read from its own files.

Nothing is guessed from tensors. Every key that changes arithmetic is honoured, or refused by its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from audiogen_core.codecs import same
from audiogen_core.codecs.same import SameConfig
from audiogen_core.errors import ModelError
from audiogen_core.settings import MAX_LAYERS, MAX_WIDTH, Section, read_json
from audiogen_mlx.stable_audio.config import Published
from audiogen_mlx.stable_audio_3.schedules import Shift

OBJECTIVES = ("rf_denoiser", "rectified_flow")
MODEL_TYPE = "diffusion_cond_inpaint"
LOCAL_IDS = ("inpaint_mask", "inpaint_masked_input")
PROMPT, SECONDS = "prompt", "seconds_total"
TURNED = 32  # channels of a head that are turned by position are never fewer
MAX_SAMPLES = 1 << 26
"""Of a clip: 25 minutes, where published models make two to six."""

PUBLISHED = {
    "rf_denoiser": Published("pingpong", 8, 1.0),
    "rectified_flow": Published("euler", 50, 7.0),
}
"""By objective: the models for use, and those they were trained from (their model cards)."""


@dataclass(frozen=True)
class DitConfig:
    """The geometry of the diffusion transformer.

    local_channels  beside the latents: what is kept when a part is made anew
    differential    of two attentions to the same values one is taken from the other
    """

    io_channels: int
    embed_dim: int
    depth: int
    heads: int
    cond_dim: int
    memory_tokens: int
    ff_dim: int
    differential: bool
    norm_eps: float = 1e-5

    @property
    def head_dim(self) -> int:
        return self.embed_dim // self.heads

    @property
    def turned(self) -> int:
        """Channels of a head that are turned by position."""
        return max(self.head_dim // 2, TURNED)

    @property
    def local_channels(self) -> int:
        return 1 + self.io_channels


@dataclass(frozen=True)
class Config:
    """A model.

    sample_size  samples that it makes at most
    max_length   tokens of a prompt, padding included
    text         folder of the text encoder, beside the model
    limits       of seconds_total, which is clamped to them
    aligned      latents that the original rounds the length of a run up to
    codec        of the autoencoder
    """

    objective: str
    sample_size: int
    sample_rate: int
    channels: int
    dit: DitConfig
    codec: SameConfig
    max_length: int
    text: str
    limits: tuple[float, float]
    aligned: int
    shift: Shift = field(default_factory=Shift)

    @property
    def hop_length(self) -> int:
        return self.codec.hop_length

    @property
    def published(self) -> Published:
        return PUBLISHED[self.objective]

    @property
    def frames(self) -> int:
        """Latent frames of the longest clip."""
        return self.sample_size // self.hop_length

    @property
    def window(self) -> int:
        """Samples of the longest clip."""
        return self.frames * self.hop_length

    @property
    def window_seconds(self) -> float:
        return self.window / self.sample_rate

    @property
    def max_seconds(self) -> float:
        """The longest clip: what the model makes, or what `seconds_total` can say, whichever is less."""
        return min(self.window_seconds, self.limits[1])


def read_config(path: Path) -> Config:
    """The configuration in a `model_config.json`. Raises ModelError, also for models of other families."""
    tree = read_json(path)
    root = Section(tree, str(path))
    root.expect("model_type", MODEL_TYPE)
    rate, channels = root.count("sample_rate"), root.count("audio_channels", 2)
    size = root.count("sample_size", most=MAX_SAMPLES)
    root.ignore("training")
    model = root.section("model")
    root.finish()
    try:
        codec = same.from_stable_audio_tools(tree)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    model.section("pretransform")  # read by the codec's own reader
    model.expect("io_channels", codec.latent_channels)
    conditioning, diffusion = model.section("conditioning"), model.section("diffusion")
    model.finish()
    width = conditioning.count("cond_dim", most=MAX_WIDTH)
    max_length, text, limits = _conditioners(conditioning)
    dit = _network(diffusion.section("config"), width, codec.latent_channels)
    diffusion.expect("type", "dit")
    diffusion.expect("cross_attention_cond_ids", [PROMPT, SECONDS])
    diffusion.expect("global_cond_ids", [SECONDS])
    diffusion.expect("local_add_cond_ids", list(LOCAL_IDS))
    for key in ("input_concat_ids", "prepend_cond_ids", "modular_local_cond_configs"):
        diffusion.expect(key, [])
    # Of training; and two that the original sets when it generates, whatever stands here.
    diffusion.ignore(
        "distribution_shift_options", "mask_padding_attention", "use_effective_length_for_schedule"
    )
    options = diffusion.take("sampling_distribution_shift_options", dict, {})
    config = Config(
        objective=diffusion.expect("diffusion_objective", *OBJECTIVES),
        sample_size=size,
        sample_rate=rate,
        channels=channels,
        dit=dit,
        codec=codec,
        max_length=max_length,
        text=text,
        limits=limits,
        aligned=_aligned(tree, codec),
        shift=Shift.of(options, str(path)),
    )
    diffusion.finish()
    if config.frames < codec.together:
        raise ModelError(f"{path}: a sample_size of {size} does not hold {codec.together} latents")
    return config


def _aligned(tree: Mapping[str, Any], codec: SameConfig) -> int:
    """The original aligns by the encoder's chunk_size, and by 32 where it has none."""
    encoder = tree["model"]["pretransform"]["config"]["encoder"]["config"]
    chunk: int = encoder.get("chunk_size", 32)
    return max(1, chunk // codec.group)


def _conditioners(section: Section) -> tuple[int, str, tuple[float, float]]:
    """Tokens of a prompt, the folder of its encoder, the limits of seconds."""
    text: tuple[int, str] | None = None
    limits: tuple[float, float] | None = None
    for item in section.take("configs", list):
        entry = Section(item, section.where)
        name = entry.take("id", str)
        settings = entry.section("config")
        if name == PROMPT:
            entry.expect("type", "t5gemma")
            settings.expect("padding_mode", "learned")
            text = settings.count("max_length", 256, most=8192), settings.take("subfolder", str, "")
            settings.ignore("repo_id", "enable_grad", "project_out")
        elif name == SECONDS:
            entry.expect("type", "number")
            settings.expect("fourier_features_type", "expo")
            limits = settings.take("min_val", float, 0.0), settings.take("max_val", float, 384.0)
            if not 0 <= limits[0] < limits[1]:
                raise ModelError(f"{section.where}: {name}: max_val must be above min_val")
        else:
            raise ModelError(f"{section.where}: the conditioner {name!r} is not known here")
        settings.finish()
        entry.finish()
    section.finish()
    if text is None or limits is None:
        raise ModelError(f"{section.where}: conditioners {PROMPT} and {SECONDS} are expected")
    return *text, limits


def _network(section: Section, width: int, latents: int) -> DitConfig:
    section.expect("io_channels", latents)
    for key in ("cond_token_dim", "global_cond_dim"):
        section.expect(key, width)
    section.expect("local_add_cond_dim", latents + 1)
    section.expect("global_cond_type", "adaLN")
    section.expect("norm_type", "rms_norm")
    section.expect("timestep_features_type", "expo")
    section.expect("timestep_features_logsnr", False)
    section.expect("patch_size", 1)
    section.expect("project_cond_tokens", True)
    section.expect("transformer_type", "continuous_transformer")
    norm = section.section("norm_kwargs", optional=True)
    eps = norm.take("eps", float, 1e-5)
    norm.ignore("force_fp32")
    norm.finish()
    attention = section.section("attn_kwargs")
    attention.expect("qk_norm", "rms")
    differential = attention.take("differential", bool, False)
    attention.finish()
    forward = section.section("ff_kwargs", optional=True)
    multiple = forward.take("mult", float, 4.0)
    forward.finish()
    config = DitConfig(
        io_channels=latents,
        embed_dim=section.count("embed_dim", most=MAX_WIDTH),
        depth=section.count("depth", most=MAX_LAYERS),
        heads=section.count("num_heads"),
        cond_dim=width,
        memory_tokens=section.count("num_memory_tokens", 0, least=0),
        ff_dim=0,
        differential=differential,
        norm_eps=eps,
    )
    section.finish()
    return checked(config, multiple, section.where)


def checked(config: DitConfig, multiple: float, where: str) -> DitConfig:
    """With a feed-forward part of that multiple of the width. Raises ModelError when parts do not fit."""
    config = replace(config, ff_dim=int(config.embed_dim * multiple))
    if not 1 <= config.ff_dim <= MAX_WIDTH:
        raise ModelError(f"{where}: layers are at most {MAX_WIDTH} wide, got {config.ff_dim}")
    if config.embed_dim % config.heads or config.head_dim < config.turned or config.turned % 2:
        raise ModelError(f"{where}: {config.heads} heads in {config.embed_dim} channels; each needs {TURNED}")
    return config

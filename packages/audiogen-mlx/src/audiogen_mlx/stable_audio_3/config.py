"""The facts of a Stable Audio 3, read from its own files.

Nothing is guessed from tensors where a file says it. Every key that changes arithmetic is honoured, or
refused by its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from audiogen_core.codecs import same
from audiogen_core.codecs.same import SameConfig, SideConfig
from audiogen_core.errors import ModelError
from audiogen_core.settings import MAX_LAYERS, MAX_WIDTH, Section, read_json
from audiogen_core.weights import Weights
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


def read_diffusers(folder: Path) -> Config:
    """The configuration of a folder of diffusers, which has the kind of medium alone.

    Its own files say neither how long clips may be nor how many tokens a prompt has, so these are medium's.
    """
    index = Section.read(folder / "model_index.json")
    if index.take("_class_name", str, "") != "StableAudio3Pipeline":
        raise ModelError(f"{folder / 'model_index.json'}: not a StableAudio3Pipeline")
    codec = same.from_diffusers(read_json(folder / "vae" / "config.json"))
    seconds = Section.read(folder / "duration_embedder" / "config.json")
    seconds.expect("fourier_dim", 256)
    seconds.expect("min_freq", 0.5)
    seconds.expect("max_freq", 10_000.0)
    own = Section.read(folder / "transformer" / "config.json")
    own.expect("use_differential_attention", True)
    own.expect("timestep_features_dim", 256)
    own.expect("patch_size", 1)
    own.expect("io_channels", codec.latent_channels)
    own.expect("local_add_cond_dim", codec.latent_channels + 1)
    width = own.count("cond_token_dim", most=MAX_WIDTH)
    own.expect("global_cond_dim", width)
    seconds.expect("output_dim", width)
    dit = DitConfig(
        io_channels=codec.latent_channels,
        embed_dim=own.count("embed_dim", most=MAX_WIDTH),
        depth=own.count("depth", most=MAX_LAYERS),
        heads=own.count("num_heads"),
        cond_dim=width,
        memory_tokens=own.count("num_memory_tokens", 0, least=0),
        ff_dim=0,
        differential=True,
    )
    return Config(
        objective="rf_denoiser",
        sample_size=4096 * codec.hop_length,
        sample_rate=codec.sample_rate,
        channels=codec.channels,
        dit=checked(dit, own.take("ff_mult", float, 4.0), own.where),
        codec=codec,
        max_length=256,
        text="text_encoder",
        limits=(seconds.take("min_val", float, 0.0), seconds.take("max_val", float, 384.0)),
        aligned=max(1, 32 // codec.group),
    )


@dataclass(frozen=True)
class _Kind:
    """What the authors' runtime has in its code, and not in its files."""

    sample_size: int
    group: int
    segment: int
    window: tuple[int, int]
    sines: int  # as the decoder's sinusoidal_blocks
    noises: tuple[float, float]  # the encoder's mask_noise, and the decoder's


_RUNTIME = {
    False: _Kind(5_292_032, 16, 34, (0, 0), 0, (0.0, 0.01)),  # small
    True: _Kind(16_777_216, 16, 0, (1, 1), 8, (0.001, 0.1)),  # medium
}
"""By whether attention is differential."""


def read_runtime(network: Weights, encoder: Weights, decoder: Weights, *, base: bool) -> Config:
    """The configuration of a network in the authors' runtime, from the shapes of its tensors.

    Its files say nothing else: which of the two published kinds it is decides the rest.

    base  it is one that others were trained from

    Raises WeightsError when a tensor is missing, ModelError when parts do not fit.
    """
    at, where = "transformer.layers.0", network.source
    width, latents = network.shape("transformer.project_in.weight")
    head = network.shape(f"{at}.self_attn.q_norm.weight")[0]
    differential = network.shape(f"{at}.self_attn.to_qkv.weight")[0] == 5 * width
    dit = DitConfig(
        io_channels=latents,
        embed_dim=width,
        depth=_depth(network, "transformer.layers."),
        heads=width // max(1, head),
        cond_dim=network.shape("to_cond_embed.0.weight")[1],
        memory_tokens=network.shape("transformer.memory_tokens")[0],
        ff_dim=0,
        differential=differential,
    )
    kind = _RUNTIME[differential]

    def side(table: Weights, sines: int, noise: float) -> SideConfig:
        inner, depth = table.shape("new_tokens")[2], _depth(table, "blocks.")
        return SideConfig(
            width=inner,
            depth=depth,
            heads=inner // max(1, table.shape("blocks.0.attn.q_norm.gamma")[0]),
            segment=kind.segment,
            shifted=kind.segment > 0,
            window=kind.window,
            sine_from=depth - sines + 1,
            kernel=table.shape("mapping.weight")[2],
            token_noise=noise,
        )

    codec = SameConfig(
        sample_rate=44_100,
        channels=2,
        latent_channels=encoder.shape("project_out.weight")[0],
        patch=encoder.shape("mapping.weight")[1] // 2,
        group=kind.group,
        encoder=side(encoder, 0, kind.noises[0]),
        decoder=side(decoder, kind.sines, kind.noises[1]),
    )
    if codec.latent_channels != latents:
        raise ModelError(f"{where}: takes {latents} channels, its autoencoder has {codec.latent_channels}")
    return Config(
        objective="rectified_flow" if base else "rf_denoiser",
        sample_size=kind.sample_size,
        sample_rate=codec.sample_rate,
        channels=codec.channels,
        dit=checked(dit, network.shape(f"{at}.ff.ff.2.weight")[1] / width, where),
        codec=codec,
        max_length=256,
        text="t5gemma-b-b-ul2",
        limits=(0.0, 384.0),
        aligned=2,
    )


def _depth(table: Weights, prefix: str) -> int:
    """Blocks that have tensors: those of these names, counted by their numbers."""
    return len({name.removeprefix(prefix).partition(".")[0] for name in table if name.startswith(prefix)})


def describe(config: Config) -> dict[str, Any]:
    """The `model_config.json` of a model: `read_config` read backwards."""
    dit, codec = config.dit, config.codec
    samples = codec.channels * codec.patch

    def side(kind: str, one: SideConfig) -> dict[str, Any]:
        span: dict[str, Any] = {"sliding_window": list(one.window)}
        if one.segment:
            chunk = one.segment // (codec.group + 1) * codec.group
            span = {"chunk_size": chunk, "chunk_midpoint_shift": one.shifted}
        own = {
            f"{kind}_channels": samples,
            "latent_dim": codec.latent_channels,
            "channels": one.width,
            "c_mults": [1],
            "strides": [codec.group],
            "transformer_depths": [one.depth],
            "dim_heads": one.width // one.heads,
            "differential": True,
            "variable_stride": True,
            "dyt": True,
            "conv_mapping": one.kernel == 3,
            "mask_noise": one.token_noise,
            "sinusoidal_blocks": [one.depth - one.sine_from + 1],
        }
        return {"type": "taae_v2", "config": own | span}

    autoencoder = {
        "encoder": side("in", codec.encoder),
        "decoder": side("out", codec.decoder),
        "bottleneck": {"type": "softnorm", "config": {"dim": codec.latent_channels, "noise_augment_dim": 0}},
        "pretransform": {
            "type": "patched",
            "config": {"channels": codec.channels, "patch_size": codec.patch},
        },
        "latent_dim": codec.latent_channels,
        "downsampling_ratio": codec.hop_length,
        "io_channels": codec.channels,
    }
    text = {"padding_mode": "learned", "max_length": config.max_length, "subfolder": config.text}
    low, high = config.limits
    seconds = {"fourier_features_type": "expo", "min_val": low, "max_val": high}
    network = {
        "io_channels": dit.io_channels,
        "embed_dim": dit.embed_dim,
        "depth": dit.depth,
        "num_heads": dit.heads,
        "num_memory_tokens": dit.memory_tokens,
        "cond_token_dim": dit.cond_dim,
        "global_cond_dim": dit.cond_dim,
        "local_add_cond_dim": dit.local_channels,
        "global_cond_type": "adaLN",
        "norm_type": "rms_norm",
        "norm_kwargs": {"eps": dit.norm_eps},
        "timestep_features_type": "expo",
        "attn_kwargs": {"qk_norm": "rms", "differential": dit.differential},
        "ff_kwargs": {"mult": dit.ff_dim / dit.embed_dim},
    }
    diffusion = {
        "type": "dit",
        "diffusion_objective": config.objective,
        "cross_attention_cond_ids": [PROMPT, SECONDS],
        "global_cond_ids": [SECONDS],
        "local_add_cond_ids": list(LOCAL_IDS),
        "config": network,
    }
    if config.shift != Shift():
        diffusion["sampling_distribution_shift_options"] = config.shift.describe()
    conditioners = [
        {"id": PROMPT, "type": "t5gemma", "config": text},
        {"id": SECONDS, "type": "number", "config": seconds},
    ]
    return {
        "model_type": MODEL_TYPE,
        "sample_size": config.sample_size,
        "sample_rate": config.sample_rate,
        "audio_channels": config.channels,
        "model": {
            "io_channels": codec.latent_channels,
            "pretransform": {"type": "autoencoder", "config": autoencoder},
            "conditioning": {"cond_dim": dit.cond_dim, "configs": conditioners},
            "diffusion": diffusion,
        },
    }


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

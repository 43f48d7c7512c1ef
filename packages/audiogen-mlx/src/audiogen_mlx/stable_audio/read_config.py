"""From the files of a model to its `Config`: those of stable-audio-tools, or a folder of diffusers.

Defaults are those of stable-audio-tools (models/dit.py, models/transformer.py, models/conditioners.py) and of
diffusers' StableAudio classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from audiogen_core.errors import ModelError
from audiogen_core.settings import MAX_LAYERS, MAX_WIDTH, Section
from audiogen_mlx.stable_audio import config as facts
from audiogen_mlx.stable_audio.config import Config, DitConfig, NumberConditioner, Published, TextConditioner
from audiogen_mlx.stable_audio.schedules import DistributionShift

MODEL_TYPES = ("diffusion_cond", "diffusion_cond_inpaint")
AUDIOGEN = "audiogen"  # type of a pretransform that audiogen_core has by name


MAX_SAMPLES = 1 << 26
"""Of a window, which is always made whole: 25 minutes, where published models have one to six."""


def read_stable_audio_tools(path: Path) -> Config:
    """The configuration in a `model_config.json`. Raises ModelError, also for models of other families."""
    root = Section.read(path)
    if "model_type" not in root:
        raise ModelError(f"{path}: no model_type; this is not a configuration of stable-audio-tools")
    kind = root.expect("model_type", *MODEL_TYPES)
    rate, channels = root.count("sample_rate"), root.count("audio_channels", 2)
    size = root.count("sample_size", most=MAX_SAMPLES)
    root.ignore("training")
    model = root.section("model")
    published = None
    if "sampling" in root:  # an addition of this package to the layout, for models that are no upstream ones
        run = root.section("sampling")
        published = Published(run.take("sampler", str), run.count("steps"), run.take("guidance_scale", float))
        run.finish()
    root.finish()
    pretransform = model.section("pretransform")
    by_name = pretransform.expect("type", "autoencoder", AUDIOGEN) == AUDIOGEN
    codec = pretransform.section("config")  # of an autoencoder in the checkpoint: read by its own reader
    hop, autoencoder = codec.count("downsampling_ratio"), codec.take("name", str) if by_name else ""
    text, numbers, cond_dim, defaults = _conditioning(model.section("conditioning"))
    diffusion = model.section("diffusion")
    model.count("io_channels")
    model.finish()
    diffusion.expect("type", "dit")
    objective = diffusion.expect("diffusion_objective", *facts.OBJECTIVES)
    if diffusion.names("prepend_cond_ids"):
        raise ModelError(f"{path}: prepend_cond_ids are not supported; this is a model of another family")
    dit = _network(diffusion.section("config"))
    config = Config(
        inpaint=kind == "diffusion_cond_inpaint",
        objective=objective,
        sample_size=size,
        sample_rate=rate,
        channels=channels,
        hop_length=hop,
        dit=dit,
        cond_dim=cond_dim,
        text=text,
        numbers=numbers,
        cross_ids=diffusion.names("cross_attention_cond_ids"),
        global_ids=diffusion.names("global_cond_ids"),
        concat_ids=diffusion.names("input_concat_ids"),
        shift=_shift(diffusion),
        defaults=defaults,
        autoencoder=autoencoder,
        published=published,
    )
    diffusion.finish()
    return _checked(config, str(path))


def _conditioning(
    section: Section,
) -> tuple[TextConditioner, tuple[NumberConditioner, ...], int, tuple[tuple[str, str], ...]]:
    width = section.count("cond_dim")
    texts: list[TextConditioner] = []
    numbers: list[NumberConditioner] = []
    for item in section.take("configs", list):
        entry = Section(item, section.where)
        name = entry.take("id", str)
        kind = entry.expect("type", "t5", "number", "int")
        settings = entry.section("config")
        entry.finish()
        if kind == "t5":
            texts.append(
                TextConditioner(
                    name,
                    settings.take("t5_model_name", str, "t5-base"),
                    settings.count("max_length", 128),
                    settings.take("project_out", bool, False),
                )
            )
            settings.ignore("enable_grad")
        else:
            whole = kind == "int"
            low = settings.take("min_val", float, 0.0)
            high = settings.take("max_val", float, 512.0 if whole else 1.0)
            if not low < high:
                raise ModelError(f"{settings.where}: {name}: max_val must be above min_val")
            numbers.append(NumberConditioner(name, low, high, whole))
        settings.finish()
    if len(texts) != 1:
        raise ModelError(f"{section.where}: one t5 conditioner is expected, found {len(texts)}")
    defaults = section.take("default_keys", dict, {})
    if section.names("pre_encoded_keys"):
        raise ModelError(f"{section.where}: pre_encoded_keys are not supported")
    section.finish()
    return texts[0], tuple(numbers), width, tuple((str(key), str(value)) for key, value in defaults.items())


def read_network(settings: Mapping[str, Any], where: str) -> DitConfig:
    """The geometry in `model.diffusion.config` alone. Raises ModelError, naming `where`."""
    return _network(Section(settings, where))


def _network(section: Section) -> DitConfig:
    section.expect("transformer_type", "continuous_transformer")
    section.expect("timestep_cond_type", "global")
    section.expect("rotary_pos_emb", True)
    for name in ("causal", "conformer", "use_sinusoidal_emb", "remove_norms", "add_rope"):
        section.expect(name, False)
    section.expect("sliding_window", None)
    section.expect("prepend_cond_dim", 0)
    section.ignore("zero_init_branch_outputs", "timestep_embed_dim")
    positions = section.count("abs_pos_emb_max_length", 10_000, most=MAX_WIDTH)
    memory_tokens = section.count("num_memory_tokens", 0, least=0)
    width, depth, heads = (
        section.count("embed_dim", 768),
        section.count("depth", 12, most=MAX_LAYERS),
        section.count("num_heads", 8),
    )
    token_dim = section.count("cond_token_dim", 0, least=0)
    projected = section.take("project_cond_tokens", bool, True)
    section.expect("project_global_cond", True)
    last = section.take("final_cross_attn_ix", int, -1)
    norm = section.section("norm_kwargs", optional=True)
    eps = norm.take("eps", float, 1e-5)
    norm.ignore("bias", "fix_scale", "force_fp32")  # stored all the same; float32 within in any case
    norm.finish()
    ff_mult, ff_bias = _ff_kwargs(section.section("ff_kwargs", optional=True))
    config = DitConfig(
        io_channels=section.count("io_channels", 32),
        embed_dim=width,
        depth=depth,
        heads=heads,
        cond_token_dim=token_dim,
        context_dim=(width if projected else token_dim) if token_dim else 0,
        global_cond_dim=section.count("global_cond_dim", 0, least=0),
        rotary_dim=max(width // heads // 2, 32),  # upstream never rotates fewer channels than that
        concat_channels=section.count("input_concat_dim", 0, least=0),
        adaptive_norm=section.expect("global_cond_type", "prepend", "adaLN") == "adaLN",
        qk_norm=_attn_kwargs(section.section("attn_kwargs", optional=True)),
        memory_tokens=memory_tokens,
        positions=positions + memory_tokens if section.take("use_abs_pos_emb", bool, False) else 0,
        patch_size=section.count("patch_size", 1),
        ff_mult=ff_mult,
        ff_out_bias=ff_bias,
        norm_eps=eps,
        layer_scale=section.take("layer_scale", bool, False),
        cross_layers=(depth if last == -1 else min(last + 1, depth)) if token_dim else 0,
    )
    section.finish()
    return config


def _attn_kwargs(section: Section) -> str:
    name: str = section.expect("qk_norm", "none", "ln", "l2")
    for refused in ("causal", "differential", "feat_scale"):
        section.expect(refused, False)
    section.ignore("zero_init_output")
    section.finish()
    return name


def _ff_kwargs(section: Section) -> tuple[float, bool]:
    mult = section.take("mult", float, 4.0)
    bias = not section.take("no_bias", bool, False)
    section.expect("glu", True)
    section.expect("use_conv", False)
    section.ignore("conv_kernel_size", "zero_init_output")
    section.finish()
    return mult, bias


def _shift(diffusion: Section) -> DistributionShift | None:
    if "distribution_shift_options" not in diffusion:
        return None
    options = diffusion.section("distribution_shift_options", optional=True)
    default = DistributionShift()
    shift = DistributionShift(
        options.take("base_shift", float, default.base_shift),
        options.take("max_shift", float, default.max_shift),
        options.count("max_length", default.max_length),
        options.count("min_length", default.min_length, least=0),
        options.take("use_sine", bool, default.use_sine),
    )
    options.finish()
    return shift


def read_diffusers(folder: Path) -> Config:
    """The configuration of a diffusers folder: model_index.json and one config.json per part."""
    index = Section.read(folder / "model_index.json")
    if index.take("_class_name", str, "") != "StableAudioPipeline":
        raise ModelError(f"{folder / 'model_index.json'}: not a StableAudioPipeline")
    vae = Section.read(folder / "vae" / "config.json")
    hop = math.prod(vae.counts("downsampling_ratios", (2, 4, 4, 8, 8)))
    rate, channels = vae.count("sampling_rate", 44100), vae.count("audio_channels", 2)
    transformer = Section.read(folder / "transformer" / "config.json")
    frames = transformer.count("sample_size", 1024, most=1 << 16)
    dit = _diffusers_dit(transformer)
    projection = Section.read(folder / "projection_model" / "config.json")
    cond_dim = projection.count("conditioning_dim")
    text_dim = projection.count("text_encoder_dim")
    low, high = projection.take("min_value", float), projection.take("max_value", float)
    numbers = tuple(NumberConditioner(name, low, high) for name in (facts.SECONDS_START, facts.SECONDS_TOTAL))
    # The pipeline pads every prompt to this length. Where a tokenizer has none, transformers stores 1e30.
    length = Section.read(folder / "tokenizer" / "tokenizer_config.json").take(
        "model_max_length", float, 128.0
    )
    text = TextConditioner(
        facts.PROMPT, "text_encoder", int(length) if 1 <= length <= 4096 else 128, text_dim != cond_dim
    )
    config = Config(
        inpaint=False,
        objective="v",
        sample_size=frames * hop,
        sample_rate=rate,
        channels=channels,
        hop_length=hop,
        dit=dit,
        cond_dim=cond_dim,
        text=text,
        numbers=numbers,
        cross_ids=(facts.PROMPT, facts.SECONDS_START, facts.SECONDS_TOTAL),
        global_ids=(facts.SECONDS_START, facts.SECONDS_TOTAL),
    )
    return _checked(config, str(folder))


def _diffusers_dit(section: Section) -> DitConfig:
    channels = section.count("in_channels", 64)
    section.expect("out_channels", channels)
    section.expect("time_proj_dim", 256)
    head_dim, heads = section.count("attention_head_dim", 64), section.count("num_attention_heads", 24)
    context_heads = section.count("num_key_value_attention_heads", 12)
    depth = section.count("num_layers", 24, most=MAX_LAYERS)
    context = section.count("cross_attention_dim", 768)
    if context != context_heads * head_dim:
        raise ModelError(
            f"{section.where}: cross_attention_dim {context} is not "
            f"num_key_value_attention_heads x attention_head_dim ({context_heads} x {head_dim})"
        )
    config = DitConfig(
        io_channels=channels,
        embed_dim=head_dim * heads,
        depth=depth,
        heads=heads,
        cond_token_dim=section.count("cross_attention_input_dim", 768),
        context_dim=context,
        global_cond_dim=section.count("global_states_input_dim", 1536),
        rotary_dim=head_dim // 2,
        cross_layers=depth,
    )
    section.ignore("_class_name", "_diffusers_version", "_name_or_path")
    section.finish()
    return config


def _checked(config: Config, where: str) -> Config:
    """The parts must fit each other. Raises ModelError."""
    dit = config.dit
    known = {config.text.id, *(number.id for number in config.numbers)}
    unknown = [name for name in (*config.cross_ids, *config.global_ids) if name not in known]
    if unknown:
        raise ModelError(f"{where}: no conditioner is called {', '.join(unknown)}")
    if config.text.id in config.global_ids:
        raise ModelError(f"{where}: {config.text.id} cannot be a global conditioner, it is text")
    defaults = dict(config.defaults)
    for number in config.numbers:
        if defaults.get(number.id, number.id) not in (facts.SECONDS_START, facts.SECONDS_TOTAL):
            raise ModelError(
                f"{where}: conditioner {number.id} is not known here, only "
                f"{facts.SECONDS_START} and {facts.SECONDS_TOTAL}"
            )
    concat = {facts.INPAINT_MASK: 1, facts.INPAINT_INPUT: dit.io_channels}
    if config.inpaint != bool(config.concat_ids) or not set(config.concat_ids) <= set(concat):
        raise ModelError(
            f"{where}: input_concat_ids {list(config.concat_ids)} do not fit the model_type; an inpainting "
            f"model takes {facts.INPAINT_MASK} and {facts.INPAINT_INPUT}, others take none"
        )
    wrong = [
        what
        for what, fits in {
            f"layers are 1 to {MAX_WIDTH} wide": dit.ff_dim > 0
            and max(dit.embed_dim, 2 * dit.ff_dim, dit.input_channels) <= MAX_WIDTH,
            "embed_dim must be a multiple of num_heads": dit.embed_dim % dit.heads == 0,
            "heads must have 32 or more channels": dit.head_dim >= dit.rotary_dim,
            "token width, head width and num_heads do not fit": not dit.context_dim
            or (
                0 < dit.head_dim <= dit.context_dim
                and dit.context_dim % dit.head_dim == 0
                and dit.heads % dit.context_heads == 0
            ),
            "cond_token_dim is not cond_dim": dit.cond_token_dim
            == (config.cond_dim if config.cross_ids else 0),
            "global_cond_dim does not fit global_cond_ids": dit.global_cond_dim
            == config.cond_dim * len(config.global_ids),
            "input_concat_dim does not fit input_concat_ids": dit.concat_channels
            == sum(concat[name] for name in config.concat_ids),
            "sample_size does not hold whole patches of latents": config.frames > 0
            and config.frames % dit.patch_size == 0,
            "abs_pos_emb_max_length is less than the positions of a window": not dit.positions
            or dit.positions >= dit.lead + config.frames // dit.patch_size,
        }.items()
        if not fits
    ]
    if wrong:
        raise ModelError(f"{where}: {'; '.join(wrong)}")
    return config

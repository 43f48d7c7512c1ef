"""What a MusicGen is like: its facts, read from each layout it is published in.

Nothing is guessed from the names of tensors. A setting that would change the arithmetic and is not known
here is refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from audiogen_core.errors import ModelError
from audiogen_core.settings import MAX_LAYERS, MAX_WIDTH, Section, from_mapping

Clip = Literal["", "melody", "style"]

FORMAT = "audiogen musicgen 1"
"""Marks the config.json of a folder that `convert` wrote."""

STYLE = "condition_provider.conditioners.self_wav."
"""Where the parameters of a style conditioner are in an audiocraft checkpoint, and in a converted folder."""

MAX_DELAY = 1000
"""Steps by which a codebook may be late: all of them come on top of those of a clip."""

_ACTIVATIONS = ("gelu", "relu")
_STYLE_HEADS = {"default": 8, "xsmall": 8, "large": 16}  # by the name of a transformer's size
_NOT_STYLE = "the settings do not describe a style conditioner"


@dataclass(frozen=True)
class ChromaConfig:
    """The facts of a melody's features. The defaults are those of every published melody model.

    sample_rate  Hz
    window       samples per frame, a power of two
    hop          samples from frame to frame
    bins         pitch classes, the first is C
    seconds      that are looked at; what is behind is cut off
    """

    sample_rate: int = 32_000
    window: int = 16_384
    hop: int = 4_096
    bins: int = 12
    seconds: float = 30.0

    def __post_init__(self) -> None:
        good = self.window >= 64 and self.hop >= 1 and self.bins >= 1 and self.seconds > 0
        if not good or self.sample_rate < 1_000:
            raise ModelError(f"the settings of the melody features make no sense: {self}")

    @property
    def samples(self) -> int:
        """How many samples are looked at."""
        return int(self.seconds * self.sample_rate)

    @property
    def frames(self) -> int:
        """How many frames a clip of full length has (235 in the published models)."""
        return 1 + self.samples // self.hop

    @classmethod
    def from_preprocessor(cls, settings: Mapping[str, Any]) -> ChromaConfig:
        """From transformers' preprocessor_config.json. Raises ModelError."""
        kind = settings.get("feature_extractor_type", "MusicgenMelodyFeatureExtractor")
        if kind != "MusicgenMelodyFeatureExtractor":
            raise ModelError(f"preprocessor_config.json is of a {kind!r}, not of a melody model")
        names = {
            "sampling_rate": "sample_rate",
            "n_fft": "window",
            "hop_length": "hop",
            "feature_size": "bins",
            "num_chroma": "bins",
            "chunk_length": "seconds",
        }
        where = "preprocessor_config.json does not describe melody features"
        return from_mapping(cls, _renamed(settings, names), where, ModelError)

    @classmethod
    def from_audiocraft(cls, settings: Mapping[str, Any]) -> ChromaConfig:
        """From all settings of an audiocraft checkpoint (its `xp.cfg`, as a table). Raises ModelError."""
        own = _clip_conditioner(settings, "chroma_stem")
        where = "the settings do not describe melody features"
        sizes = Section(own, where)
        window = sizes.take("winlen", int, 0) or 2 ** sizes.count("radix2_exp", 14)
        if not own.get("argmax", True) or (own.get("nfft") or window) != window:
            raise ModelError(f"melody features of this kind are not known here: {own}")
        names = {"sample_rate": "sample_rate", "n_chroma": "bins", "duration": "seconds"}
        values = {
            **_renamed(_table(settings, "dataset"), {"segment_duration": "seconds"}),
            **_renamed(own, names),
            "window": window,
            "hop": own.get("winhop") or window // 4,
        }
        return from_mapping(cls, values, where, ModelError)


@dataclass(frozen=True)
class StyleConfig:
    """The facts of a style conditioner. The defaults are those of the published model.

    sample_rate  Hz, of the music model
    seconds      of the excerpt, unless asked otherwise
    stride       vectors of MERT per token
    codebooks    of the quantiser
    eval_q       codebooks that are used, unless asked otherwise
    heads        of the transformer
    batch_norm   whether there is one

    Widths, layers and codebook sizes are read off the weights. Raises ModelError when it makes no sense.
    """

    sample_rate: int = 32_000
    seconds: float = 3.0
    stride: int = 15
    codebooks: int = 6
    eval_q: int = 3
    heads: int = 8
    batch_norm: bool = True

    def __post_init__(self) -> None:
        good = min(self.sample_rate, self.seconds, self.stride, self.heads) > 0
        if not good or not 1 <= self.eval_q <= self.codebooks:
            raise ModelError(f"{_NOT_STYLE}: {self}")

    @classmethod
    def from_audiocraft(cls, settings: Mapping[str, Any]) -> StyleConfig:
        """From all settings of an audiocraft checkpoint (its `xp.cfg`, as a table). Raises ModelError.

        A transformer of a size that audiocraft does not name has as many heads as the music model's.
        """
        own = _clip_conditioner(settings, "style")
        if own.get("model_name", "mert") != "mert":
            raise ModelError(
                f"a style conditioner on {own['model_name']!r} is not known here; expected 'mert'"
            )
        names = {
            "sample_rate": "sample_rate",
            "length": "seconds",
            "ds_factor": "stride",
            "n_q_out": "codebooks",
            "eval_q": "eval_q",
            "batch_norm": "batch_norm",
        }
        values = _renamed(own, names)
        heads = _STYLE_HEADS.get(str(own.get("transformer_scale", "default")))
        music = _renamed(_table(settings, "transformer_lm"), {"num_heads": "heads"})
        values |= music if heads is None else {"heads": heads}
        return from_mapping(cls, values, _NOT_STYLE, ModelError)


@dataclass(frozen=True)
class Config:
    """The facts of one MusicGen.

    width, layers, heads, hidden  of the transformer; hidden is that of its feed-forward part
    codebooks       rows of tokens; a stereo model has those of the left and the right channel in turn
    codebook_size   entries in one; the id after the last is the special token
    delays          steps by which each row is late
    channels        of the audio, 1 or 2
    text_width      of the text encoder's vectors
    text_projected  whether they go through a linear layer on the way in
    text_in_prefix  the text stands before the music as a prefix; otherwise it is attended to
    clip            what a clip conditions: "melody", "style" or nothing; it stands before the text
    melody_frames   to which a melody's features are repeated or cut
    text_encoder    the name of the T5 where the checkpoint holds none ("t5-base")
    window_seconds  what the model was trained on, and makes at once
    masks_text      whether the original masks the padding of a text that is attended to
    clock           periods in frames of waves among the positions, in place of the slowest; none published
                    has any. A model that counts in them keeps time without listening to itself
    """

    width: int
    layers: int
    heads: int
    hidden: int
    codebooks: int
    codebook_size: int
    delays: tuple[int, ...]
    channels: int
    text_width: int
    text_projected: bool = True
    text_in_prefix: bool = False
    clip: Clip = ""
    melody_frames: int = 0
    text_encoder: str = "t5-base"
    activation: str = "gelu"
    window_seconds: float = 30.0
    masks_text: bool = True
    chroma: ChromaConfig | None = None
    style: StyleConfig | None = None
    clock: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("width", "layers", "heads", "hidden", "codebooks", "codebook_size", "text_width"):
            if getattr(self, name) < 1:
                raise ModelError(f"the configuration does not describe a MusicGen: {name} is 0 or less")
        problems = {
            f"{self.layers} layers": self.layers > MAX_LAYERS,
            "layers that are too wide": max(self.width, self.hidden, self.text_width, self.codebook_size)
            > MAX_WIDTH,
            "the heads do not divide the width": self.width % self.heads,
            "an odd or too small width": self.width % 2 or self.width < 4,
            "one delay of 0 or more per codebook is needed": len(self.delays) != self.codebooks
            or min(self.delays) < 0,
            f"delays of more than {MAX_DELAY} steps": max(self.delays, default=0) > MAX_DELAY,
            f"{self.channels} channels": self.channels not in (1, 2) or self.codebooks % self.channels,
            f"the activation {self.activation!r} is not known here": self.activation not in _ACTIVATIONS,
            "windows must be longer than nothing and at most an hour": not 0 < self.window_seconds <= 3600,
            "no features of a melody": self.clip == "melody"
            and (self.chroma is None or self.melody_frames < 1),
            "no settings of a style": self.clip == "style" and self.style is None,
            "a clock of more waves than there are, or of no length": 2 * len(self.clock) > self.width
            or not all(0 < period < math.inf for period in self.clock),
            "a projection is missing": not self.text_projected and self.text_width != self.width,
        }
        for problem, there in problems.items():
            if there:
                raise ModelError(f"the configuration does not describe a MusicGen: {problem}")

    @property
    def special(self) -> int:
        """The id that begins every sequence and fills the gaps of the delay pattern."""
        return self.codebook_size

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Config:
        """What `to_dict` made. Raises ModelError."""
        where = "the configuration of the converted model is damaged, or of another version"
        return from_mapping(cls, values, where, ModelError)


def from_transformers(config: Mapping[str, Any], preprocessor: Mapping[str, Any] | None = None) -> Config:
    """From the config.json of a transformers folder, and its preprocessor_config.json for melodies.

    Raises ModelError for another family, or a setting that is not known here.
    """
    kind = config.get("model_type")
    if kind not in ("musicgen", "musicgen_melody"):
        raise ModelError(f"config.json is of a {kind!r}, expected 'musicgen' or 'musicgen_melody'")
    whole = Section(config, "config.json does not describe a MusicGen")
    decoder, text = whole.section("decoder"), whole.section("text_encoder")
    decoder.expect("scale_embedding", False)
    decoder.expect("cross_attention_hidden_size", None)
    channels, codebooks = decoder.count("audio_channels", 1), decoder.count("num_codebooks")
    size, width = decoder.take("vocab_size", int), decoder.take("hidden_size", int)
    special = [decoder.take(name, int, size) for name in ("pad_token_id", "bos_token_id")]
    if special != [size, size]:
        raise ModelError(f"config.json: special tokens {special} are not known here; expected {size}")
    text_width = text.take("d_model", int)
    melody = kind == "musicgen_melody"
    chroma = ChromaConfig.from_preprocessor(preprocessor or {}) if melody else None
    return Config(
        width=width,
        layers=decoder.take("num_hidden_layers", int),
        heads=decoder.take("num_attention_heads", int),
        hidden=decoder.take("ffn_dim", int),
        codebooks=codebooks,
        codebook_size=size,
        delays=tuple(k // channels for k in range(codebooks)),
        channels=channels,
        text_width=text_width,
        text_projected=text_width != width,
        text_in_prefix=melody,
        clip="melody" if melody else "",
        melody_frames=whole.take("chroma_length", int) if melody else 0,
        activation=decoder.take("activation_function", str, "gelu"),
        chroma=replace(chroma, bins=whole.take("num_chroma", int, chroma.bins)) if chroma else None,
    )


_AUDIOCRAFT: dict[str, tuple[Any, ...]] = {
    "norm_first": (True,),
    "bias_proj": (False,),
    "bias_ff": (False,),
    "bias_attn": (False,),
    "causal": (True,),
    "past_context": (None,),
    "layer_scale": (None,),
    "positional_embedding": ("sin",),
    "positional_scale": (1.0, 1),
    "xpos": (False,),
    "norm": ("layer_norm",),
    "qk_layer_norm": (False,),
    "qk_layer_norm_cross": (False,),
    "kv_repeat": (1,),
}
"""Settings of audiocraft's transformer that change the arithmetic, and the only values known here."""


def from_audiocraft(settings: Mapping[str, Any], text_width: int) -> Config:
    """From the settings inside an audiocraft `state_dict.bin` (its `xp.cfg`, parsed and resolved).

    text_width  of the text encoder, which these settings do not say

    Raises ModelError for another family, or a setting that is not known here.
    """
    if settings.get("lm_model") != "transformer_lm":
        raise ModelError(
            f"xp.cfg is of a {settings.get('lm_model')!r}, which is no MusicGen; expected 'transformer_lm'"
        )
    whole = Section(settings, "xp.cfg does not describe a MusicGen")
    network = whole.section("transformer_lm")
    for key, accepted in _AUDIOCRAFT.items():
        network.expect(key, *accepted)
    clip, in_prefix = _fused(settings)
    width, codebooks = network.take("dim", int), network.count("n_q")
    chroma = ChromaConfig.from_audiocraft(settings) if clip == "melody" else None
    return Config(
        width=width,
        layers=network.take("num_layers", int),
        heads=network.take("num_heads", int),
        hidden=int(network.take("hidden_scale", float, 4.0) * width),
        codebooks=codebooks,
        codebook_size=network.take("card", int),
        delays=_delays(whole.section("codebooks_pattern"), codebooks),
        channels=_channels(whole.section("interleave_stereo_codebooks", optional=True)),
        text_width=text_width,
        text_in_prefix=in_prefix,
        clip=clip,
        melody_frames=chroma.frames if chroma else 0,
        text_encoder=text_encoder_of_audiocraft(settings),
        activation=network.take("activation", str, "gelu"),
        window_seconds=whole.section("dataset").take("segment_duration", float, 30.0),
        masks_text=False,
        chroma=chroma,
        style=StyleConfig.from_audiocraft(settings) if clip == "style" else None,
    )


def text_encoder_of_audiocraft(settings: Mapping[str, Any]) -> str:
    """The name of the T5 that audiocraft's settings ask for. Raises ModelError."""
    node = Section(settings, "xp.cfg does not describe a MusicGen")
    for part in ("conditioners", "description", "t5"):
        node = node.section(part)
    return node.take("name", str)


def _table(settings: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    """The table that lies below some keys; an empty one where there is none. Raises ModelError."""
    for key in keys:
        inner = settings.get(key) or {}
        if not isinstance(inner, Mapping):
            raise ModelError(f"xp.cfg: expected a table of {'.'.join(keys)}, found {key}: {inner!r}")
        settings = inner
    return settings


def _renamed(settings: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The settings that are there, under our names; of two for one thing the later counts."""
    return {ours: settings[theirs] for theirs, ours in names.items() if theirs in settings}


def _clip_conditioner(settings: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """What audiocraft's settings say of the conditioner on a clip, of a kind. Raises ModelError."""
    node = _table(settings, "conditioners", "self_wav")
    if node.get("model") != kind or not isinstance(node.get(kind), Mapping):
        raise ModelError(f"the settings have no conditioner of the kind {kind!r} on a clip")
    own = dict(node[kind])
    if own.get("sample_rate") == "${sample_rate}":  # of the whole, in settings read without references
        own["sample_rate"] = settings.get("sample_rate")
    return own


def _fused(settings: Mapping[str, Any]) -> tuple[Clip, bool]:
    """What a clip conditions, and whether the text stands in the prefix."""
    fuser = settings.get("fuser")
    if not isinstance(fuser, Mapping):
        raise ModelError("xp.cfg does not describe a MusicGen: fuser is missing")
    ways = {
        way: [str(name) for name in names]
        if isinstance(names := fuser.get(way) or [], list)
        else [str(names)]
        for way in ("cross", "prepend")
    }
    used = [*ways["cross"], *ways["prepend"]]
    others = [way for way, names in fuser.items() if way not in ways and isinstance(names, list) and names]
    if others or fuser.get("cross_attention_pos_emb") or sorted(set(used)) != sorted(used):
        raise ModelError(f"xp.cfg: conditions enter in a way that is not known here: {dict(fuser)}")
    if used.count("description") != 1 or not set(used) <= {"description", "self_wav"}:
        raise ModelError(f"xp.cfg: conditions {used} are not known here; expected description and self_wav")
    in_prefix = "description" in ways["prepend"]
    if "self_wav" not in used:
        return "", in_prefix
    if "self_wav" in ways["cross"]:
        raise ModelError("xp.cfg: a clip that is attended to is not known here; expected it in the prefix")
    model = str(_table(settings, "conditioners", "self_wav").get("model"))
    kinds: dict[str, Clip] = {"chroma_stem": "melody", "style": "style"}
    if model not in kinds:
        raise ModelError(
            f"xp.cfg: the conditioner {model!r} on a clip is not known here; expected {list(kinds)}"
        )
    return kinds[model], in_prefix


def _delays(pattern: Section, codebooks: int) -> tuple[int, ...]:
    modeling = pattern.take("modeling", str)
    if modeling != "delay":
        raise ModelError(f"xp.cfg: the pattern {modeling!r} is not known here; expected 'delay'")
    delay = pattern.section("delay", optional=True)
    delay.expect("flatten_first", 0)
    delay.expect("empty_initial", 0)
    return delay.counts("delays", tuple(range(codebooks)), least=0)


def _channels(interleaved: Section) -> int:
    if not interleaved.take("use", bool, False):
        return 1
    if interleaved.take("per_timestep", bool, False):
        raise ModelError("xp.cfg: stereo codes in turn by frame are not known here; expected by codebook")
    return 2

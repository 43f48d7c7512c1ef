"""What a MusicGen is like: its facts, read from each layout it is published in.

Nothing is guessed from the names of tensors. A setting that would change the arithmetic and is not known
here is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from audiogen_core.errors import ModelError
from audiogen_mlx.musicgen.melody import ChromaConfig, conditioner_settings
from audiogen_mlx.musicgen.style_network import StyleConfig

Clip = Literal["", "melody", "style"]

FORMAT = "audiogen musicgen 1"
"""Marks the config.json of a folder that `convert` wrote."""

_ACTIVATIONS = ("gelu", "relu")


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

    def __post_init__(self) -> None:
        for name in ("width", "layers", "heads", "hidden", "codebooks", "codebook_size", "text_width"):
            if getattr(self, name) < 1:
                raise ModelError(f"the configuration does not describe a MusicGen: {name} is 0 or less")
        problems = {
            "the heads do not divide the width": self.width % self.heads,
            "an odd or too small width": self.width % 2 or self.width < 4,
            "one delay of 0 or more per codebook is needed": len(self.delays) != self.codebooks
            or min(self.delays) < 0,
            f"{self.channels} channels": self.channels not in (1, 2) or self.codebooks % self.channels,
            f"the activation {self.activation!r} is not known here": self.activation not in _ACTIVATIONS,
            "windows must be longer than nothing": not self.window_seconds > 0,
            "no features of a melody": self.clip == "melody"
            and (self.chroma is None or self.melody_frames < 1),
            "no settings of a style": self.clip == "style" and self.style is None,
            "a projection is missing": not self.text_projected and self.text_width != self.width,
        }
        for problem, found in problems.items():
            if found:
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
        known = {field.name for field in fields(cls)}
        if not isinstance(values, Mapping) or set(values) != known:
            raise ModelError("the configuration of the converted model is damaged, or of another version")
        made = dict(values) | {"delays": tuple(values["delays"])}
        try:
            for name, kind in (("chroma", ChromaConfig), ("style", StyleConfig)):
                made[name] = None if values[name] is None else kind(**values[name])
            return cls(**made)
        except TypeError as error:
            raise ModelError(f"the configuration of the converted model is damaged: {error}") from error


def from_transformers(config: Mapping[str, Any], preprocessor: Mapping[str, Any] | None = None) -> Config:
    """From the config.json of a transformers folder, and its preprocessor_config.json for melodies.

    Raises ModelError for another family, or a setting that is not known here.
    """
    kind = config.get("model_type")
    if kind not in ("musicgen", "musicgen_melody"):
        raise ModelError(f"config.json is of a {kind!r}, expected 'musicgen' or 'musicgen_melody'")
    decoder, text = _part(config, "decoder"), _part(config, "text_encoder")
    _expect("config.json", decoder, {"scale_embedding": False, "cross_attention_hidden_size": None})
    melody = kind == "musicgen_melody"
    try:
        channels, codebooks = int(decoder.get("audio_channels", 1)), int(decoder["num_codebooks"])
        size, width, text_width = (
            int(decoder["vocab_size"]),
            int(decoder["hidden_size"]),
            int(text["d_model"]),
        )
        special = [decoder.get(name, size) for name in ("pad_token_id", "bos_token_id")]
        if any(found not in (None, size) for found in special):
            raise ModelError(f"config.json: special tokens {special} are not known here; expected {size}")
        return Config(
            width=width,
            layers=int(decoder["num_hidden_layers"]),
            heads=int(decoder["num_attention_heads"]),
            hidden=int(decoder["ffn_dim"]),
            codebooks=codebooks,
            codebook_size=size,
            delays=tuple(k // channels for k in range(codebooks)),
            channels=channels,
            text_width=text_width,
            text_projected=text_width != width,
            text_in_prefix=melody,
            clip="melody" if melody else "",
            melody_frames=int(config["chroma_length"]) if melody else 0,
            activation=str(decoder.get("activation_function", "gelu")),
            chroma=_chroma(config, preprocessor or {}) if melody else None,
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ModelError(f"config.json does not describe a MusicGen: {error!r}") from error


def from_audiocraft(settings: Mapping[str, Any], text_width: int) -> Config:
    """From the settings inside an audiocraft `state_dict.bin` (its `xp.cfg`, parsed and resolved).

    text_width  of the text encoder, which these settings do not say

    Raises ModelError for another family, or a setting that is not known here.
    """
    if settings.get("lm_model") != "transformer_lm":
        raise ModelError(
            f"xp.cfg is of a {settings.get('lm_model')!r}, which is no MusicGen; expected 'transformer_lm'"
        )
    network = _part(settings, "transformer_lm")
    _expect("xp.cfg", network, _AUDIOCRAFT)
    clip, in_prefix = _fused(settings)
    try:
        width, codebooks = int(network["dim"]), int(network["n_q"])
        chroma = ChromaConfig.from_audiocraft(settings) if clip == "melody" else None
        text = _part(_part(_part(settings, "conditioners"), "description"), "t5")
        return Config(
            width=width,
            layers=int(network["num_layers"]),
            heads=int(network["num_heads"]),
            hidden=int(network.get("hidden_scale", 4) * width),
            codebooks=codebooks,
            codebook_size=int(network["card"]),
            delays=_delays(settings, codebooks),
            channels=_channels(settings),
            text_width=text_width,
            text_in_prefix=in_prefix,
            clip=clip,
            melody_frames=chroma.frames if chroma else 0,
            text_encoder=str(text["name"]),
            activation=str(network.get("activation") or "gelu"),
            window_seconds=float(_part(settings, "dataset").get("segment_duration", 30.0)),
            masks_text=False,
            chroma=chroma,
            style=StyleConfig.from_audiocraft(settings) if clip == "style" else None,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"xp.cfg does not describe a MusicGen: {error!r}") from error


_AUDIOCRAFT: dict[str, Any] = {
    "norm_first": True,
    "bias_proj": False,
    "bias_ff": False,
    "bias_attn": False,
    "causal": True,
    "past_context": None,
    "layer_scale": None,
    "positional_embedding": "sin",
    "positional_scale": 1.0,
    "xpos": False,
    "norm": "layer_norm",
    "qk_layer_norm": False,
    "qk_layer_norm_cross": False,
    "kv_repeat": 1,
}
"""Settings of audiocraft's transformer that change the arithmetic, and the only values known here."""


def _expect(where: str, settings: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    for name, value in expected.items():
        if settings.get(name, value) != value:
            raise ModelError(f"{where}: {name} {settings[name]!r} is not known here; expected {value!r}")


def _part(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = settings.get(name)
    if not isinstance(found, Mapping):
        raise ModelError(f"the configuration does not describe a MusicGen: it has no {name}")
    return found


def _chroma(config: Mapping[str, Any], preprocessor: Mapping[str, Any]) -> ChromaConfig:
    chroma = ChromaConfig.from_preprocessor(preprocessor)
    return replace(chroma, bins=int(config.get("num_chroma", chroma.bins)))


def _fused(settings: Mapping[str, Any]) -> tuple[Clip, bool]:
    """What a clip conditions, and whether the text stands in the prefix."""
    fuser = _part(settings, "fuser")
    ways = {way: [str(name) for name in fuser.get(way) or []] for way in ("cross", "prepend")}
    used = [*ways["cross"], *ways["prepend"]]
    others = {
        name: found for name, found in fuser.items() if name not in ways and isinstance(found, list) and found
    }
    if others or fuser.get("cross_attention_pos_emb") or sorted(set(used)) != sorted(used):
        raise ModelError(f"xp.cfg: conditions enter in a way that is not known here: {dict(fuser)}")
    if used.count("description") != 1 or not set(used) <= {"description", "self_wav"}:
        raise ModelError(f"xp.cfg: conditions {used} are not known here; expected description and self_wav")
    if "self_wav" not in used:
        return "", "description" in ways["prepend"]
    if "self_wav" in ways["cross"]:
        raise ModelError("xp.cfg: a clip that is attended to is not known here; expected it in the prefix")
    model = _part(_part(settings, "conditioners"), "self_wav").get("model")
    kinds: dict[Any, Clip] = {"chroma_stem": "melody", "style": "style"}
    if model not in kinds:
        raise ModelError(
            f"xp.cfg: the conditioner {model!r} on a clip is not known here; expected {list(kinds)}"
        )
    conditioner_settings(settings, str(model))
    return kinds[model], "description" in ways["prepend"]


def _delays(settings: Mapping[str, Any], codebooks: int) -> tuple[int, ...]:
    pattern = _part(settings, "codebooks_pattern")
    if pattern.get("modeling") != "delay":
        raise ModelError(
            f"xp.cfg: the pattern {pattern.get('modeling')!r} is not known here; expected 'delay'"
        )
    delay = pattern.get("delay") or {}
    _expect("xp.cfg", delay, {"flatten_first": 0, "empty_initial": 0})
    return tuple(int(late) for late in delay.get("delays") or range(codebooks))


def _channels(settings: Mapping[str, Any]) -> int:
    interleaved = settings.get("interleave_stereo_codebooks") or {}
    if not interleaved.get("use"):
        return 1
    if interleaved.get("per_timestep"):
        raise ModelError("xp.cfg: stereo codes in turn by frame are not known here; expected by codebook")
    return 2

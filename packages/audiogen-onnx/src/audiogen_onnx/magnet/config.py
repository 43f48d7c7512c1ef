"""What a MAGNeT is like: its facts, read from the settings in audiocraft's checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from audiogen_core.errors import ModelError
from audiogen_core.musicgen import config as musicgen
from audiogen_core.musicgen.config import Config
from audiogen_core.settings import Section, from_mapping

LM = "transformer_lm_magnet"


@dataclass(frozen=True)
class MagnetConfig:
    """The facts of one MAGNeT. Raises ModelError when they describe none.

    network  what its transformer has in common with MusicGen's, whose delays are 0 here
    context  how far a position sees to either side in all codebooks but the first; -1: without end
    span     frames that are masked together
    seconds  that it was trained on
    sound    text to sound, whose defaults differ, and not to music
    """

    network: Config
    context: int = 5
    span: int = 3
    seconds: float = 10.0
    sound: bool = False

    def __post_init__(self) -> None:
        if self.context < -1 or not 1 <= self.span <= 1024 or not 0 < self.seconds <= 3600:
            raise ModelError(
                f"the configuration does not describe a MAGNeT: context {self.context}, spans of {self.span} "
                f"frames, {self.seconds} seconds"
            )
        if any(self.network.delays) or self.network.clip or self.network.text_in_prefix:
            raise ModelError("the configuration does not describe a MAGNeT: it has delays, or a prefix")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MagnetConfig:
        """What `to_dict` made. Raises ModelError."""
        where = "the configuration of the exported model is damaged, or of another version"
        return from_mapping(cls, values, where, ModelError)


def from_audiocraft(settings: Mapping[str, Any], text_width: int) -> MagnetConfig:
    """From the settings inside a MAGNeT's `state_dict.bin` (its `xp.cfg`, parsed).

    text_width  of the text encoder, which these settings do not say

    Raises ModelError for another family, or a setting that is not known here.
    """
    if settings.get("lm_model") != LM:
        raise ModelError(f"xp.cfg is of a {settings.get('lm_model')!r}, which is no MAGNeT; expected {LM!r}")
    whole = Section(settings, "xp.cfg does not describe a MAGNeT")
    network = whole.section("transformer_lm")
    network.expect("causal", False)
    pattern = whole.section("codebooks_pattern")
    if (kind := pattern.take("modeling", str)) != "parallel":
        raise ModelError(f"xp.cfg: the pattern {kind!r} is not known here; expected 'parallel'")
    pattern.section("parallel", optional=True).expect("empty_initial", -1)
    # What they have in common is read as that of a MusicGen without delays.
    books = network.count("n_q")
    common = {
        **settings,
        "lm_model": "transformer_lm",
        "transformer_lm": {**settings["transformer_lm"], "causal": True},
        "codebooks_pattern": {"modeling": "delay", "delay": {"delays": [0] * books}},
    }
    return MagnetConfig(
        network=musicgen.from_audiocraft(common, text_width),
        context=network.take("subcodes_context", int, -1),
        span=whole.section("masking").count("span_len"),
        seconds=whole.section("dataset").take("segment_duration", float),
        sound=settings.get("solver") == "audio_magnet",
    )

"""What an exported MusicGen says about itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

from audiogen_core.codec import CodecInfo
from audiogen_core.errors import AudiogenError, ManifestError
from audiogen_core.musicgen.config import Config
from audiogen_core.musicgen.options import Defaults
from audiogen_core.settings import from_mapping
from audiogen_onnx.manifest import Exported, StoredFile

TOKENIZER, WORDS = "tokenizer.json", "prompts.json"
CODEC = ("config.json", "model.safetensors")
"""The files of a codec that lies in the folder, as transformers has them."""


@dataclass(frozen=True, kw_only=True)
class Prompted(Exported):
    """An exported model that reads prompts and makes codes.

    model   its configuration, as JSON
    codec   what its codes are decoded with: for stereo, that of one side
    parts   files beside the graphs: tokenizer.json; those of the codec unless it is one of audiogen-core;
            prompts.json if the model has words of its own
    """

    model: Mapping[str, Any]
    codec: CodecInfo
    parts: tuple[StoredFile, ...]

    @property
    def beside(self) -> tuple[StoredFile, ...]:
        return self.parts

    @property
    def has_codec(self) -> bool:
        """Whether the codec lies in the folder."""
        return set(CODEC) <= {part.file for part in self.parts}

    def incomplete(self, names: tuple[str, ...], codebook_size: int) -> str | None:
        """What is missing of a model that has these graphs, or does not fit its codec."""
        if missing := sorted(set(names) - set(self.graphs)):
            return f"graphs are missing: {', '.join(missing)}"
        if TOKENIZER not in {part.file for part in self.parts}:
            return f"{TOKENIZER} is missing"
        if self.codec.codebook_size != codebook_size or self.codec.channels != 1:
            return f"the codec is {self.codec}, the model makes codes of {codebook_size}"
        return None

    @classmethod
    def parsed(cls, facts: dict[str, Any], damaged: str) -> Self:
        codec = from_mapping(CodecInfo, facts["codec"], f"{damaged}: codec", ManifestError)
        parts = [
            from_mapping(StoredFile, part, f"{damaged}: parts", ManifestError) for part in facts["parts"]
        ]
        return cls(**{**facts, "codec": codec, "parts": tuple(parts)})


@dataclass(frozen=True, kw_only=True)
class MusicGenManifest(Prompted):
    """An exported MusicGen.

    Its graphs are decoder and text; cross if the text is attended to, melody or style if a clip is followed.
    Its defaults are those of `Defaults`.
    """

    family: ClassVar[str] = "musicgen"

    @cached_property
    def config(self) -> Config:
        """The facts of the model."""
        return Config.from_dict(self.model)

    def problem(self) -> str | None:
        try:
            config = self.config
            Defaults.from_dict(self.defaults)
        except AudiogenError as error:
            return str(error)
        return self.incomplete(graphs(config), config.codebook_size)


def graphs(config: Config) -> tuple[str, ...]:
    """The graphs that a model has."""
    cross = () if config.text_in_prefix else ("cross",)
    return ("decoder", "text", *cross, *((config.clip,) if config.clip else ()))

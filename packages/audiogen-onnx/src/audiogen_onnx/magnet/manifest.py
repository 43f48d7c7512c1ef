"""What an exported MAGNeT says about itself."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from audiogen_core.errors import AudiogenError
from audiogen_onnx.magnet.config import MagnetConfig
from audiogen_onnx.musicgen.manifest import Prompted

GRAPHS = ("network", "text", "cross")


@dataclass(frozen=True, kw_only=True)
class MagnetManifest(Prompted):
    """An exported MAGNeT. Its graphs are network, text and cross."""

    family: ClassVar[str] = "magnet"

    @cached_property
    def config(self) -> MagnetConfig:
        """The facts of the model."""
        return MagnetConfig.from_dict(self.model)

    def problem(self) -> str | None:
        try:
            config = self.config
        except AudiogenError as error:
            return str(error)
        return self.incomplete(GRAPHS, config.network.codebook_size)

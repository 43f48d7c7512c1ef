"""A VampNet that something new is to be made of: its codec, and both networks as they can be changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from audiogen_core.codec import Codec
from audiogen_core.errors import ModelError
from audiogen_core.models import Fetch
from audiogen_onnx.codec import codec_of
from audiogen_onnx.exporter import stored
from audiogen_onnx.exporter.config import COARSE_SECONDS, FINE_SECONDS
from audiogen_onnx.exporter.model import Checkpoint
from audiogen_onnx.exporter.sources import COARSE, FINE, Sources, check_role
from audiogen_onnx.exporter.weights import Updates, load_apart, load_codec
from audiogen_onnx.manifest import LOUDNESS, NAME, Manifest


@dataclass(frozen=True, eq=False)
class Part:
    """One network without its low-rank updates, these, and the seconds it was trained on."""

    checkpoint: Checkpoint
    updates: Updates
    seconds: float


@dataclass(frozen=True, eq=False)
class Base:
    """The parts of a VampNet.

    loudness  LUFS of the sound it was trained on
    defaults  options of a vamp that suit it
    """

    codec: Codec
    coarse: Part
    fine: Part
    loudness: float = LOUDNESS
    defaults: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path, *, fetch: Fetch | None = None, ops: str = "torch") -> Base:
        """Of a folder of checkpoints, or of an exported one, in which there are no updates apart.

        fetch  how a codec of audiogen-core comes that is not here
        ops    of a codec that is no graph

        Raises ModelError, WeightsError, ManifestError; ModelError for one that was exported from VampNet's
        own checkpoints, whose updates can no longer be told from its weights.
        """
        if not (folder / NAME).is_file():
            sources = Sources.of(folder)
            codec = load_codec(sources.codec, ops)
            vectors = codec.codebook_vectors()
            coarse = Part(*load_apart(sources.coarse, vectors), COARSE_SECONDS)
            fine = Part(*load_apart(sources.fine, vectors), FINE_SECONDS)
            check_role(coarse.checkpoint.config, 0, str(sources.coarse))
            check_role(fine.checkpoint.config, coarse.checkpoint.config.codebooks, str(sources.fine))
            return cls(codec, coarse, fine)
        with Manifest.opened(folder) as manifest:
            check_own(manifest, folder)
            coarse, fine = (
                Part(
                    stored.read(manifest.graph_path(folder, name), network, manifest.codec),
                    {},
                    network.window_seconds,
                )
                for name, network in (("coarse", manifest.coarse), ("fine", manifest.fine))
            )
            codec = codec_of(manifest, folder, fetch=fetch)
        return cls(codec, coarse, fine, manifest.codec.loudness, manifest.defaults)


def check_own(manifest: Manifest, folder: Path) -> None:
    """Raise ModelError for a folder that was exported from VampNet's own checkpoints."""
    if {COARSE, FINE} & set(manifest.created_from):
        raise ModelError(
            f"{folder}: was exported from {COARSE} and {FINE}, whose low-rank updates are in its weights and "
            "would be there twice; name the folder of these checkpoints"
        )

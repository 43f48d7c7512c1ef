"""A VampNet that something new is to be made of: its codec, and both networks as they can be changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from audiogen_core.codec import Codec
from audiogen_core.models import Fetch
from audiogen_onnx.codec import codec_of
from audiogen_onnx.exporter import stored
from audiogen_onnx.exporter.config import COARSE_SECONDS, FINE_SECONDS
from audiogen_onnx.exporter.model import Checkpoint
from audiogen_onnx.exporter.sources import Sources, check_role
from audiogen_onnx.exporter.weights import Updates, apart, load_apart, load_codec
from audiogen_onnx.manifest import CHECKPOINTS, LOUDNESS, NAME, Manifest, NetworkGeometry
from audiogen_onnx.vampnet.lora import check_told


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
        """Of a folder of checkpoints, or of an exported one, whose weights are as exact as its numbers are.

        fetch  how a codec of audiogen-core comes that is not here
        ops    of a codec that is no graph

        Raises ModelError, WeightsError, ManifestError; ModelError for one that was exported from VampNet's
        own checkpoints when folders did not tell the updates that are in their weights.
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
            check_told(manifest, folder)
            coarse, fine = (_part(manifest, folder, name) for name in CHECKPOINTS)
            codec = codec_of(manifest, folder, fetch=fetch)
        return cls(codec, coarse, fine, manifest.codec.loudness, manifest.defaults)


def _part(manifest: Manifest, folder: Path, name: str) -> Part:
    """A network of an exported folder; its updates lie beside it, if it had some."""
    network: NetworkGeometry = getattr(manifest, name)
    checkpoint = stored.read(manifest.graph_path(folder, name), network, manifest.codec)
    if (own := (manifest.updates or {}).get(name)) is None:
        return Part(checkpoint, {}, network.window_seconds)
    return Part(*apart(checkpoint, folder / own.file), network.window_seconds)

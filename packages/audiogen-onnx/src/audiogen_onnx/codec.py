"""OnnxCodec: a codec whose encoder and decoder are ONNX graphs, behind core's interface."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiogen_core import codecs
from audiogen_core.codec import Codec, CodecInfo
from audiogen_core.errors import ManifestError, ModelError
from audiogen_core.layers import Convolutional, PadToMultiple
from audiogen_core.models import Fetch
from audiogen_core.ops import Float, Ops
from audiogen_core.ops.numpy_ops import NumpyOps
from audiogen_core.settings import parse_json
from audiogen_onnx.manifest import CODEC, CodecGeometry, Manifest
from audiogen_onnx.session import Session

FACTS = "audiogen_codec"
"""Key of a graph's metadata: a JSON object of CodecInfo's fields and `reach`."""


def codec_of(
    manifest: Manifest,
    folder: Path,
    providers: Sequence[str] | None = None,
    threads: int | None = None,
    fetch: Fetch | None = None,
) -> Codec:
    """The codec of an exported folder: its own graphs, or the codec of audiogen-core that it names.

    fetch  how that one comes where it is not here; see `audiogen_core.codecs.load`

    Raises ManifestError when it is not the one that the folder describes, UnknownModel when there is none of
    its name.
    """
    if manifest.has_codec:
        graphs = (manifest.graph_path(folder, name) for name in CODEC)
        return OnnxCodec(*(Session(path, providers, threads) for path in graphs))
    codec, said = codecs.load_codec(manifest.codec.name, fetch=fetch), manifest.codec
    there = geometry_of(codec.info, loudness=said.loudness)
    if there != said:
        raise ManifestError(f"{folder}: was made for the codec {said}, but {said.name} is {there}")
    return codec


def geometry_of(info: CodecInfo, **more: float) -> CodecGeometry:
    """A codec as a manifest describes it."""
    return CodecGeometry(
        info.name,
        info.sample_rate,
        info.hop_length,
        info.codebooks,
        info.codebook_size,
        info.channels,
        **more,
    )


class OnnxCodec(Codec):
    """A codec that onnxruntime computes. Long clips are worked off in chunks, with the result of the whole.

    encoder, decoder  the sessions of the two graphs (see `vampnet.codec_export.export_codec`)

    Raises ManifestError when a graph does not say what it is, or they are not of one codec.
    """

    def __init__(self, encoder: Session, decoder: Session) -> None:
        first, second = _facts(encoder), _facts(decoder)
        if first.info != second.info:
            raise ManifestError(
                f"{decoder.path}: is the decoder of {second.info.name}, but {encoder.path.name} is the "
                f"encoder of {first.info.name}; export both together"
            )
        info, ops = first.info, NumpyOps()
        super().__init__(
            info,
            ops,
            encoder=[
                Convolutional(
                    [PadToMultiple(info.hop_length), _Graph(encoder, "audio", "codes", first.reach)],
                    down=info.hop_length,
                )
            ],
            decoder=[Convolutional([_Graph(decoder, "codes", "audio", second.reach)], up=info.hop_length)],
            codebooks=np.zeros((0, 0, 0), np.float32),
            quantizer=_Rows(info.codebooks),
        )
        self.chunk_seconds = 6.0

    @classmethod
    def load(
        cls, folder: str | Path, providers: Sequence[str] | None = None, threads: int | None = None
    ) -> OnnxCodec:
        """The codec of an exported folder: its `encoder.onnx` and `decoder.onnx`. Raises ManifestError."""
        encoder, decoder = (Path(folder) / name for name in ("encoder.onnx", "decoder.onnx"))
        return cls(Session(encoder, providers, threads), Session(decoder, providers, threads))

    def codebook_vectors(self) -> Float:
        """Raises ModelError: the entries lie inside the graphs, where onnxruntime does not show them."""
        raise ModelError(
            f"{self.info.name} is run from graphs, which do not show their codebooks; "
            "load the checkpoint they were exported from with audiogen_core.codecs.load"
        )


@dataclass(frozen=True)
class _Facts:
    info: CodecInfo
    reach: tuple[int, int]


def _facts(session: Session) -> _Facts:
    damaged = f"{session.path}: not a codec's graph, or its description is damaged"
    try:
        facts = dict(parse_json(session.metadata[FACTS], damaged, ManifestError))
        left, right = (int(steps) for steps in facts.pop("reach"))
        info = CodecInfo(**facts)
    except (KeyError, TypeError, ValueError) as error:
        raise ManifestError(damaged) from error
    counts = (info.sample_rate, info.channels, info.hop_length, info.codebooks, info.codebook_size)
    if not all(isinstance(count, int) and count > 0 for count in counts) or min(left, right) < 0:
        raise ManifestError(f"{session.path}: the description of the codec is damaged ({info})")
    return _Facts(info, (left, right))


@dataclass(frozen=True)
class _Graph:
    """A whole graph as one layer: an array (B, C, T) in, one out, and a known reach."""

    session: Session
    takes: str
    makes: str
    spoilt: tuple[int, int]

    def __call__(self, ops: Ops, x: NDArray[Any]) -> NDArray[Any]:
        return self.session.run({self.takes: x})[self.makes]

    def reach(self, left: int, right: int) -> tuple[int, int]:
        return self.spoilt


class _Rows:
    """The graphs quantise themselves: codes are signals, one channel per codebook; -1 where there is none."""

    def __init__(self, codebooks: int) -> None:
        self.codebooks = codebooks

    def encode(self, x: NDArray[Any], count: int) -> list[NDArray[Any]]:
        return [x[:, row] for row in range(count)]

    def decode(self, codes: Sequence[NDArray[Any]]) -> NDArray[Any]:
        absent = [np.full_like(codes[0], -1)] * (self.codebooks - len(codes))
        return np.stack([*codes, *absent], axis=1)

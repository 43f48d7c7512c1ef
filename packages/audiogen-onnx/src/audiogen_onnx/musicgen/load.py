"""An exported MusicGen from its folder: the graphs, and what they compute for a run."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiogen_core import codecs, patterns
from audiogen_core.codec import Codec
from audiogen_core.errors import ManifestError, ModelError
from audiogen_core.models import Fetch
from audiogen_core.musicgen.conditioning import Conditioner, Floats, Rows, Tokens
from audiogen_core.musicgen.files import CODEC_SECONDS
from audiogen_core.musicgen.stereo import StereoCodec
from audiogen_core.musicgen.style import hear
from audiogen_core.sampling import Sampling
from audiogen_core.tokenizer import Tokenizer
from audiogen_onnx.musicgen.decoder import Decoder
from audiogen_onnx.musicgen.manifest import TOKENIZER, MusicGenManifest, Prompted
from audiogen_onnx.musicgen.sampling import Sampler
from audiogen_onnx.session import Session

BLOCK_STEPS = 25
"""Steps whose tokens are handed on together."""


class Parts:
    """A MusicGen, loaded: `audiogen_core.musicgen.conditioning.Network` of an exported folder.

    The graphs of melodies and styles are opened when one is first followed. Raises ManifestError when the
    codec is not the one that the folder describes.
    """

    def __init__(
        self,
        manifest: MusicGenManifest,
        folder: Path,
        providers: Sequence[str] | None = None,
        threads: int | None = None,
        fetch: Fetch | None = None,
    ) -> None:
        self.manifest, self.folder, self.config = manifest, folder, manifest.config
        self._opening = (providers, threads)
        cross = None if self.config.text_in_prefix else self._session("cross")
        self.decoder = Decoder(self.config, self._session("decoder"), cross)
        codec = codec_of(manifest, folder, fetch)
        self.codec: Codec = StereoCodec(codec) if self.config.channels == 2 else codec
        self._text = self._session("text")
        self._text.expect(["ids", "mask"], ["vectors"])

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.load(self.folder / TOKENIZER)

    def _session(self, name: str) -> Session:
        return Session(self.manifest.graph_path(self.folder, name), *self._opening)

    # What a run asks for

    def text(self, ids: Tokens, mask: NDArray[np.bool_]) -> Floats:
        vectors: Floats = self._text.run({"ids": ids.astype(np.int64), "mask": mask})["vectors"][0]
        return vectors

    @cached_property
    def _clip(self) -> Session:
        """The graph of what a clip is followed by."""
        session = self._session(self.config.clip)
        melody = self.config.clip == "melody"
        session.expect(["features"] if melody else ["samples", "used"], ["vectors" if melody else "tokens"])
        return session

    def melody(self, features: Floats) -> Floats:
        return self._clip.run({"features": features})["vectors"]

    def style(self, clip: Any, **options: Any) -> Floats:
        assert self.config.style is not None
        heard = hear(clip, self.config.style, **options)
        used = (np.arange(self.config.style.codebooks) < heard.codebooks).astype(np.float32)
        tokens = self._clip.run({"samples": heard.samples[None], "used": used})["tokens"][0]
        return np.ascontiguousarray(tokens[:: heard.stride])

    def sampler(self, sampling: Sampling, seeds: Sequence[int], steps: int) -> Sampler:
        return Sampler(sampling, self.config.codebooks, seeds, steps)

    def steps(
        self, rows: Rows, tokens: Tokens, first: int, conditioner: Conditioner, sampler: Sampler, base: int
    ) -> Generator[Tokens]:
        groups, end = len(conditioner.groups), tokens.shape[2]
        current = tokens[:, :, :first]
        run = self.decoder.run(rows, end - 1)
        try:
            for start in range(first, end, BLOCK_STEPS):
                columns = []
                for step in range(start, min(start + BLOCK_STEPS, end)):
                    logits = run(np.concatenate([current] * groups), last=True)
                    logits = conditioner.join(logits)[:, :, 0]  # (B, K, N)
                    if not np.isfinite(logits).all():
                        raise ModelError(
                            f"{self.folder}: the model gave NaN or infinity; its weights are damaged, or "
                            f"overflow in {self.manifest.dtype}"
                        )
                    drawn, wanted = sampler(logits, base + step - first), tokens[:, :, step]
                    current = np.where(wanted == patterns.UNKNOWN, drawn, wanted)[:, :, None]
                    columns.append(current)
                yield np.concatenate(columns, axis=2)
        finally:
            run.close()


def codec_of(manifest: Prompted, folder: Path, fetch: Fetch | None) -> Codec:
    """The codec of an exported folder. Raises ManifestError when it is not the one that it describes."""
    said = manifest.codec
    codec = codecs.load_codec(folder if manifest.has_codec else said.name, fetch=fetch)
    if codec.info != said:
        raise ManifestError(f"{folder}: was made for the codec {said}, but there is {codec.info}")
    codec.chunk_seconds = CODEC_SECONDS
    return codec

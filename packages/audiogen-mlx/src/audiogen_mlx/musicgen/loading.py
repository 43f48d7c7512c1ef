"""The parts of a MusicGen, loaded from its files."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from audiogen_core.errors import ModelError
from audiogen_mlx.memory import bounded_cache
from audiogen_mlx.musicgen.files import Files, text_weights
from audiogen_mlx.musicgen.model import Transformer
from audiogen_mlx.musicgen.style import StyleConditioner
from audiogen_mlx.musicgen.weights import DTYPES, Source
from audiogen_mlx.t5 import load_t5
from audiogen_mlx.tokenizer import Tokenizer

if TYPE_CHECKING:
    from audiogen_core.codec import Codec

CODEC_SECONDS = 2.0
"""Of audio the codec works off at a time, streaming or not, so that both give the same samples."""


class Parts:
    """A MusicGen, loaded: everything strictly, layer by layer."""

    def __init__(self, files: Files, *, dtype: str | None = None, bits: int | None = None) -> None:
        from audiogen_core.codecs import load_codec
        from audiogen_mlx.musicgen.stereo import StereoCodec
        from audiogen_mlx.ops import MlxOps

        self.files = files
        self.config = files.config
        dtype = dtype or files.stored_dtype
        with bounded_cache():
            self.source = Source(
                files.table, self.config, files.layout, dtype=dtype, bits=bits, stored_bits=files.stored_bits
            )
            self.transformer = Transformer(self.source)
            self.style = self._load_style()
            self.source.finish()
            self.t5 = load_t5(files.t5_config, text_weights(files), dtype=DTYPES[dtype])
            codec: Codec = load_codec(files.codec_path, MlxOps())
        codec.chunk_seconds = CODEC_SECONDS
        self.codec = StereoCodec(codec) if self.config.channels == 2 else codec
        self._check_codec()

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.load(self.files.tokenizer_file)

    def _load_style(self) -> StyleConditioner | None:
        if self.config.style is None:
            return None
        return StyleConditioner.from_table(self.files.table, self.config.style, self.files.mert)

    def _check_codec(self) -> None:
        """Raises ModelError when the codec's codes are not what the transformer makes."""
        info, config = self.codec.info, self.config
        more = info.codebooks - config.codebooks
        by_name = self.files.named_codec is not None and config.channels == 1  # the first books may be enough
        if info.codebook_size != config.codebook_size or more < 0 or (more and not by_name):
            raise ModelError(
                f"{self.files.folder}: its codec {info.name} has {info.codebooks} codebooks of "
                f"{info.codebook_size}, the model makes {config.codebooks} of {config.codebook_size}"
            )

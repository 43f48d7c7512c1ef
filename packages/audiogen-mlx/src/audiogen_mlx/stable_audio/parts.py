"""The parts of a model: text encoder, number embedders, network, autoencoder; loaded when first needed.

Where memory is short a part is given back as soon as its work is done, and read again the next time.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Mapping, Sequence
from functools import cached_property

import mlx.core as mx

from audiogen_core import codecs, weights
from audiogen_core.codec import Autoencoder
from audiogen_core.codecs import oobleck
from audiogen_core.errors import ModelError
from audiogen_mlx.ops import MlxOps
from audiogen_mlx.stable_audio.conditioning import (
    Conditioning,
    NumberEmbedder,
    Projection,
    TextEmbedder,
    assemble,
    load_numbers,
    load_projection,
)
from audiogen_mlx.stable_audio.config import Config
from audiogen_mlx.stable_audio.files import Files, TextFiles, weight_files
from audiogen_mlx.stable_audio.model import DiT
from audiogen_mlx.stable_audio.parse import read_json
from audiogen_mlx.stable_audio.weights import Tables, load_dit, read_diffusers, read_stable_audio_tools
from audiogen_mlx.t5 import T5Config, load_t5
from audiogen_mlx.tokenizer import Tokenizer

_SHARE = 0.6  # of a machine's memory that weights may take before parts are given back


class Parts:
    """Loads each part once, and keeps it or not.

    files   the model; `base` is the whole model where these hold a transformer alone
    text    the T5
    dtype   of the network and of T5; the autoencoder runs in float32
    frugal  give parts back after use; None decides by the memory of this machine
    """

    def __init__(
        self,
        files: Files,
        text: TextFiles,
        config: Config,
        *,
        dtype: mx.Dtype,
        base: Files | None = None,
        frugal: bool | None = None,
    ) -> None:
        self.files, self.base, self.text_files = files, base, text
        self.config, self.dtype = config, dtype
        if frugal is None:
            frugal = weight_bytes(files, text) > _SHARE * _machine_memory()
        self.frugal = frugal
        self._text: TextEmbedder | None = None
        self._dit: DiT | None = None
        self._autoencoder: Autoencoder | None = None

    def load(self) -> None:
        """Load what is kept now rather than later, so a fault of a file comes up before any work."""
        self.text()
        if self.frugal:
            self._drop_text()
        self.dit()
        if not self.frugal:
            self.autoencoder()

    @cached_property
    def tables(self) -> Tables:
        """The tensors of the checkpoint, unread."""
        if self.files.diffusers:
            return read_diffusers(self.files.folder)
        found = read_stable_audio_tools(self.files.checkpoint)
        if self.base is not None and (found.embedders is None or found.vae is None):
            whole = read_stable_audio_tools(self.base.checkpoint)
            found = Tables(found.dit, found.embedders or whole.embedders, found.vae or whole.vae)
        if found.embedders is None or (found.vae is None and not self.config.autoencoder):
            raise ModelError(
                f"{self.files.checkpoint}: holds a transformer alone; name the whole model it was trained "
                "from as its base (--base)"
            )
        return found

    @cached_property
    def _embedders(self) -> tuple[T5Config, Projection | None, dict[str, NumberEmbedder]]:
        """What T5 is, the layer after it, and the embedders of seconds; small, and kept."""
        table = self.tables.embedders
        assert table is not None
        described = T5Config.from_dict(read_json(self.text_files.encoder / "config.json"))
        projection = load_projection(self.config, table, described.width)
        numbers = load_numbers(self.config, table)
        table.finish()
        return described, projection, numbers

    def text(self) -> TextEmbedder:
        """The text encoder."""
        if self._text is None:
            described, projection, _ = self._embedders
            tokenizer = Tokenizer.load(self.text_files.tokenizer)
            tensors = weights.read(self.text_files.encoder)
            encoder = load_t5(described, tensors, dtype=self.dtype)
            self._text = TextEmbedder(self.config.text, tokenizer, encoder, projection)
        return self._text

    def condition(
        self, prompts: Sequence[str], seconds: Mapping[str, Sequence[float]]
    ) -> tuple[Conditioning, ...]:
        """The conditioning of B prompts, and of B more where 2 B are given; B is how many seconds are."""
        tokens, mask = self.text()(prompts)
        mx.eval(tokens)
        self._drop_text()
        count = len(next(iter(seconds.values())))
        spans = [slice(start, start + count) for start in range(0, len(prompts), count)]
        numbers = self._embedders[2]
        return tuple(assemble(self.config, (tokens[span], mask[span]), numbers, seconds) for span in spans)

    def dit(self) -> DiT:
        """The network."""
        if self._dit is None:
            self._dit = load_dit(self.config.dit, self.tables.dit, self.dtype)
        return self._dit

    def autoencoder(self) -> Autoencoder:
        """The autoencoder."""
        if self._autoencoder is None:
            self._autoencoder = self._load_autoencoder()
        return self._autoencoder

    def _load_autoencoder(self) -> Autoencoder:
        ops = MlxOps()
        if self.config.autoencoder:
            return codecs.load_autoencoder(self.config.autoencoder, ops)
        if self.files.diffusers:
            found = codecs.load(self.files.folder / "vae", ops)
            if not isinstance(found, Autoencoder):
                raise ModelError(f"{self.files.folder / 'vae'}: not an autoencoder")
            return found
        table = self.tables.vae
        assert table is not None
        facts = oobleck.from_stable_audio_tools(read_json(self.files.config))
        return oobleck.build(facts, oobleck.stable_audio_tools_weights(table, facts), ops)

    def drop_dit(self) -> None:
        """Sampling is over: the network may go."""
        if self.frugal:
            self._dit = None
            _release()

    def drop_autoencoder(self) -> None:
        """A clip was encoded: until latents are decoded the autoencoder may go."""
        if self.frugal:
            self._autoencoder = None
            _release()

    def _drop_text(self) -> None:
        if self.frugal:
            self._text = None
            _release()


def _release() -> None:
    gc.collect()
    mx.clear_cache()


def weight_bytes(files: Files, text: TextFiles) -> int:
    """How large the weight files are."""
    roots = [files.checkpoint, text.encoder]
    return sum(path.stat().st_size for root in roots for path in weight_files(root))


def _machine_memory() -> float:
    """Bytes of memory, infinite where the system does not say."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (ValueError, OSError, AttributeError):
        return float("inf")

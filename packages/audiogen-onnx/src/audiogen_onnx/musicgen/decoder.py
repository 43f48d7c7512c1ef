"""The transformer as onnxruntime runs it: a run over rows, whose keys and values stay where they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiogen_core.errors import ManifestError
from audiogen_core.musicgen.conditioning import Floats, Rows, Tokens
from audiogen_core.musicgen.config import Config
from audiogen_core.musicgen.positions import positions
from audiogen_onnx.session import Session

Ints = NDArray[np.int64]

_HIDDEN = np.float32(-3.0e38)  # added to scores of what is not seen


class Decoder:
    """The graphs of a model's transformer. `run` begins a run.

    decoder  one step, or several
    cross    keys and values of a text, where it is attended to
    cached   how keys and values are kept: as float32, or as int8 with scales that the graph knows
    """

    def __init__(self, config: Config, decoder: Session, cross: Session | None) -> None:
        self.config, self.decoder, self.cross = config, decoder, cross
        self.prefixed = bool(config.clip) or config.text_in_prefix
        self.head_width = padded(config)
        cache = [f"{part}.{index}" for index in range(config.layers) for part in ("keys", "values")]
        past = [f"past_{name}" for name in cache]
        inputs = ["tokens", "positions", "keep", "lengths", "total", *past]
        inputs += ["prefix", "order"] if self.prefixed else []
        if cross is not None:
            attended = [f"cross_{name}" for name in cache]
            cross.expect(["text"], attended)
            inputs += [*attended, "cross_bias"]
        decoder.expect(inputs, ["logits", *cache])
        if any(decoder.shapes[name][1:] != decoder.shapes["past_keys.0"][1:] for name in past) or (
            decoder.shapes["past_keys.0"][1::2] != [config.heads, self.head_width]
        ):
            raise ManifestError(f"{decoder.path}: its keys and values are not those of this model")
        self.cached = np.int8 if decoder.inputs["past_keys.0"] == "tensor(int8)" else np.float32
        self._positions = np.zeros((0, config.width), np.float32)

    def run(self, rows: Rows, steps: int) -> Run:
        """Begin a run of at most `steps` steps of tokens."""
        prefix = 0 if rows.prefix is None else rows.prefix.shape[1]
        return Run(self, rows, prefix + steps, self.positions(prefix + steps))

    def positions(self, count: int) -> Floats:
        """What is added for where a vector stands: (at least count, width)."""
        if count > len(self._positions):  # in whole thousands
            self._positions = positions(-(-count // 1024) * 1024, self.config.width, self.config.clock)
        return self._positions


def padded(config: Config) -> int:
    """Width of a head among keys and values: a multiple of 8, as onnxruntime's attention wants it."""
    return -(-(config.width // config.heads) // 8) * 8


def attended(
    cross: Session | None, width: int, count: int, text: Any, mask: Any
) -> dict[str, NDArray[np.float32]]:
    """What a text gives the network: keys and values of each layer, nothing in rows that attend to nothing.

    cross  the graph that makes them; None: the text is not attended to
    count  of rows, of which the first attend to a text (A, L, width) or None
    mask   (A, L) true where a vector of it is real, or None when all are
    """
    if cross is None:
        return {}
    length = 1 if text is None else text.shape[1]
    vectors = np.zeros((count, length, width), np.float32)
    bias = np.zeros((count, 1, 1, length), np.float32)
    if text is not None:
        vectors[: len(text)] = text
    if mask is not None:
        bias[: len(mask), 0, 0][~mask] = _HIDDEN
    return {**cross.run({"text": vectors}), "cross_bias": bias}


class Run:
    """A run in progress. A call goes on with it.

    most   positions it will have
    cache  keys and values of each layer, (rows, heads, most, head width)
    """

    def __init__(self, decoder: Decoder, rows: Rows, most: int, places: Floats) -> None:
        config = decoder.config
        self._decoder, self._rows, self._places = decoder, rows, places
        shape = (rows.count, config.heads, most, decoder.head_width)
        names = [f"{part}.{index}" for index in range(config.layers) for part in ("keys", "values")]
        self.cache = {name: np.zeros(shape, decoder.cached) for name in names}
        self._given = attended(decoder.cross, config.width, rows.count, rows.text, rows.mask)
        self._fill = np.zeros(rows.count, np.int64) if rows.fill is None else np.array(rows.fill)
        self._done = np.zeros(rows.count, np.int64)  # positions of each row that are in the cache
        self._changing: dict[str, Any] = {}
        self._step: Callable[[], None] | None = None

    def __call__(self, tokens: Tokens, *, last: bool = False) -> Floats:
        """Tokens (rows, K, S) -> logits of the tokens after each, float32 (rows, K, S, N).

        With `last`, only of those after the last: (rows, K, 1, N). The first call puts the prefix before the
        tokens, and only it may be of several steps. Logits are good until the next call.
        """
        return self._one(tokens) if self._done.any() else self._first(tokens, last)

    def _first(self, tokens: Tokens, last: bool) -> Floats:
        prefix, (count, _, steps) = self._rows.prefix, tokens.shape
        places = steps + (0 if prefix is None else prefix.shape[1])
        self._done = places - self._fill
        wanted = np.arange(-1 if last else -steps, 0) + self._done[:, None]
        inputs: dict[str, Any] = {
            "tokens": tokens.astype(np.int64),
            "positions": self._places[None, :places],
            "keep": wanted[..., None],
            "lengths": (self._done - 1).astype(np.int32),
            "total": np.array([places], np.int32),
        }
        if self._decoder.prefixed:
            # What a row has before its prefix is left out, and is taken in at its end, where nobody looks.
            order = np.minimum(np.arange(places) + self._fill[:, None], places - 1)
            none = np.zeros((count, 0, self._decoder.config.width), np.float32)
            inputs |= {"prefix": none if prefix is None else np.asarray(prefix), "order": order[..., None]}
        logits = self._logits(count, wanted.shape[1])
        self._bound({name: np.ascontiguousarray(array) for name, array in inputs.items()}, logits)()
        return logits

    def _one(self, tokens: Tokens) -> Floats:
        """One more step, through arrays that are bound once."""
        changing, count = self._changing, len(tokens)
        if self._step is None:
            width = self._decoder.config.width
            changing |= {
                "tokens": np.zeros(tokens.shape, np.int64),
                "positions": np.zeros((count, 1, width), np.float32),
                "keep": np.zeros((count, 1, 1), np.int64),
                "lengths": np.zeros(count, np.int32),
                "total": np.zeros(1, np.int32),
                "logits": self._logits(count, 1),
            }
            inputs = {name: array for name, array in changing.items() if name != "logits"}
            if self._decoder.prefixed:
                inputs["prefix"] = np.zeros((count, 0, width), np.float32)
                inputs["order"] = np.zeros((count, 1, 1), np.int64)
            self._step = self._bound(inputs, changing["logits"])
        changing["tokens"][...] = tokens
        changing["positions"][:, 0] = self._places[self._done]
        changing["lengths"][...] = self._done
        changing["total"][...] = self._done.max() + 1
        self._done += 1
        self._step()
        logits: Floats = changing["logits"]
        return logits

    def _logits(self, count: int, kept: int) -> Floats:
        config = self._decoder.config
        return np.empty((count, config.codebooks, kept, config.codebook_size), np.float32)

    def _bound(self, inputs: dict[str, Any], logits: Floats) -> Callable[[], None]:
        past = {f"past_{name}": array for name, array in self.cache.items()}
        outputs = {"logits": logits, **self.cache}
        return self._decoder.decoder.bound({**inputs, **self._given, **past}, outputs)

    def close(self) -> None:
        """Let go of all keys and values; the run cannot go on."""
        self.cache.clear()
        self._given.clear()
        self._changing.clear()
        self._step = None

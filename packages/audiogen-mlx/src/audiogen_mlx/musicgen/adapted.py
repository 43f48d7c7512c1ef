"""A MusicGen that learns: the frozen transformer, with a low-rank path beside some of its matrices.

The paths stay apart from the network's parameters: x W' + s (x A') B', A (r, in) and B (out, r), by the names
that modules have in transformers and peft. With DoRA each output is then scaled to the length that is learned
for its row; the length it has is no part of the gradient. Sources: arXiv 2106.09685, 2402.09353; peft,
tuners/lora.

Gradients are worked out layer by layer, from the last to the first, out of what was kept of each: what goes
into its matrices, but no attention weights and nothing that is quickly made again. Arrays are of numpy on a
CPU, of mlx elsewhere; what differs between them is in `kinds`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.nn.layers.quantized import QuantizedLinear
from numpy.typing import NDArray

from audiogen_core import patterns
from audiogen_core.errors import OptionError
from audiogen_core.lora import Adapter
from audiogen_core.musicgen.config import Config
from audiogen_core.musicgen.positions import positions
from audiogen_core.musicgen.weights import pieces
from audiogen_mlx import cpu
from audiogen_mlx.musicgen.kinds import Array, Device, Host, Kind
from audiogen_mlx.musicgen.model import Transformer

Factors = dict[str, dict[str, mx.array]]
"""What is learned: module -> lora_A (r, in), lora_B (out, r), and with DoRA lora_magnitude_vector (out,); of
embeddings lora_embedding_A (r, rows), lora_embedding_B (width, r)."""

TARGETS = {
    "attention": ("q_proj", "k_proj", "v_proj", "out_proj"),
    "all": ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
}
"""Names for several kinds of modules."""


@dataclass(frozen=True)
class Batch:
    """Clips to learn from.

    tokens   (B, K, S) what the network reads: each codebook late by its delay, after a column of nothing
    targets  (B, K, S) what it is to say; the special id where nothing is
    text     (B, L, text width) vectors of the captions, as the text encoder makes them
    mask     (B, L) true where one is real
    told     (B,) false where the caption is left out
    clip     (B, C, width) what stands first of all: vectors of a melody or style; None where there is none
    """

    tokens: NDArray[np.int32]
    targets: NDArray[np.int32]
    text: NDArray[np.float32]
    mask: NDArray[np.bool_]
    told: NDArray[np.bool_]
    clip: NDArray[np.float32] | None = None


def batch(
    config: Config,
    codes: Sequence[NDArray[np.int32]],
    texts: Sequence[NDArray[np.float32]],
    told: Sequence[bool] | None = None,
    clips: Sequence[NDArray[np.float32]] | None = None,
) -> Batch:
    """Clips (K, T) each with the vectors of its caption (L, text width), of its melody or style (C, width).

    Every code is a target.
    """
    frames = max(clip.shape[1] for clip in codes)
    rows = []
    for clip in codes:
        whole = np.full((config.codebooks, frames), config.special, np.int32)
        whole[:, : clip.shape[1]] = clip
        rows.append(patterns.delay(whole, config.delays, config.special))
    laid = np.stack(rows)
    tokens = np.pad(laid, ((0, 0), (0, 0), (1, 0)), constant_values=config.special)[:, :, :-1]
    longest = max(1, *(len(text) for text in texts))
    text = np.zeros((len(texts), longest, texts[0].shape[1]), np.float32)
    mask = np.zeros((len(texts), longest), bool)
    for index, vectors in enumerate(texts):
        text[index, : len(vectors)] = vectors
        mask[index, : len(vectors)] = True
    heard = np.array([True] * len(texts) if told is None else told) & mask.any(axis=1)
    mask[~mask.any(axis=1), 0] = True  # no row may see nothing at all; what it sees is not used
    return Batch(tokens, laid, text, mask, heard, None if clips is None else np.stack(clips))


class Adapted:
    """A transformer that stays as it is, and what is learned beside it.

    scales      s of each adapted module
    checkpoint  keep of each layer only what went in, and work the rest out again for its gradients
    """

    def __init__(
        self, network: Transformer, scales: Mapping[str, float], *, checkpoint: bool = False
    ) -> None:
        self.network, self.scales, self.checkpoint = network, dict(scales), checkpoint
        self.names = {
            path: [part.removesuffix(".weight") for part in parts]
            for path, parts in pieces(network.config, "transformers").items()
        }
        if network.config.text_in_prefix:
            self.names = {path: parts for path, parts in self.names.items() if ".cross." not in path}
        known = {name for path, parts in self.names.items() for name in parts if path != "melody.weight"}
        if unknown := sorted(set(scales) - known):
            raise OptionError(
                f"the model has no modules {', '.join(unknown[:10])} that can be learned beside"
            )
        is_plain = not isinstance(network.heads, QuantizedLinear)
        self.kind: Kind = Host() if is_plain and cpu.here() else Device(network.dtype)

    def loss(self, factors: Factors, given: Batch) -> float:
        """Cross entropy: its mean over each codebook's targets of the whole batch, then over codebooks."""
        with self.kind.threads():
            return _Pass(self, factors, given).loss()

    def gradients(self, factors: Factors, given: Batch) -> tuple[float, Factors]:
        """The loss, and its gradients of all that is learned."""
        with self.kind.threads():
            return _Pass(self, factors, given).gradients()

    def logits(self, factors: Factors, given: Batch) -> NDArray[np.float32]:
        """Of the token after each: (B, K, S, N), float32."""
        rows, books, steps = given.tokens.shape
        with self.kind.threads():
            said = np.array(_Pass(self, factors, given).said(keep=False))
        return said.reshape(rows, steps, books, -1).transpose(0, 2, 1, 3)


@dataclass
class _Kept:
    """What the gradients of a layer need of its forward pass, with a row for each position.

    first   of the normalising of what went into it
    qkv     queries, keys and values, and by them was heard `heard`, `hearing` what its way back needs
    then    of the normalising before its attention to the text, where it has one, with `query` and `pair`:
            keys and values of the text; by them was heard `told`, as above
    last    of the normalising before its feed-forward part
    active  came of the activation there, which was so `steep`; kept where something is learned beside `down`
    """

    first: Array
    qkv: Array
    heard: Array
    hearing: Array
    then: Array
    query: Array
    pair: Array
    told: Array
    telling: Array
    last: Array
    active: Array
    steep: Array


class _Pass:
    """A batch on its way through the network, and back."""

    def __init__(self, model: Adapted, factors: Factors, given: Batch) -> None:
        self.model, self.network, self.kind = model, model.network, model.kind
        self.config, self.given = model.network.config, given
        exact = self.kind.exact
        self.own = {
            module: {leaf: exact(array) for leaf, array in own.items()} for module, own in factors.items()
        }
        self.found: dict[str, dict[str, Array]] = {module: {} for module in factors}
        self.low: dict[tuple[str, int], Array] = {}  # what paths made narrow, by layer and its first part
        self._ratios: dict[str, tuple[Array, Array]] = {}
        self.clips, _, self.steps = given.tokens.shape
        self.kept: list[_Kept | Array] = []
        self.crosses = not self.config.text_in_prefix
        self.learns_text = any(name in factors for name in model.names.get("text.weight", ()))
        self.learns_embeddings = any(name in factors for name in model.names["embeddings"])
        learned = [
            int(path.split(".")[1])
            for path, names in model.names.items()
            if path.startswith("blocks.") and not factors.keys().isdisjoint(names)
        ]
        # No gradient is worked out below the first layer beside which something is learned, or before it.
        self.to_embeddings = self.learns_embeddings or (self.learns_text and not self.crosses)
        self.lowest = (
            0 if self.learns_text or self.to_embeddings else min(learned, default=len(self.network.blocks))
        )

    def loss(self) -> float:
        return self._loss(self.said(keep=False))[0]

    def gradients(self) -> tuple[float, Factors]:
        loss, slope = self._loss(self.said(keep=True))
        self._back(slope.reshape(self.clips * self.steps, -1))
        found = {
            module: {leaf: mx.array(own[leaf]) for leaf in self.own[module]}
            for module, own in self.found.items()
        }
        mx.eval(found)
        return loss, found

    def _loss(self, said: Array) -> tuple[float, Array]:
        targets = np.where(self.given.targets == self.config.special, -1, self.given.targets)
        laid = targets.transpose(0, 2, 1).reshape(-1, self.config.codebooks)
        return self.kind.cross_entropy(said.reshape(*laid.shape, -1), laid)

    # There

    def said(self, keep: bool) -> Array:
        """Logits (B * S, K * N) in float32."""
        given, kind, network = self.given, self.kind, self.network
        self.raw = kind.array(given.text).reshape(-1, given.text.shape[2])
        self.text = self._linear("text", self.raw) if self.config.text_projected else self.raw
        x = kind.array(network.embed(mx.array(given.tokens))) + self._embedded()
        self.ahead = [] if given.clip is None else [kind.array(given.clip)]
        if not self.crosses:
            self.ahead.append(self.text.reshape(self.clips, -1, self.config.width) * self._told())
        x = kind.join([*self.ahead, x], axis=1)
        self.length = x.shape[1]
        self.seen, self.seen_text = kind.array(self._seen()), kind.array(given.mask)
        self.share = kind.array(np.repeat(np.float32(given.told), self.length))[:, None]
        x = (x + kind.array(self._places())).reshape(self.clips * self.length, -1)
        for index in range(len(network.blocks)):
            keeps = keep and index >= self.lowest
            y, kept = self._forward(index, x, keeps and not self.model.checkpoint)
            kind.settle(y)
            if keeps:
                self.kept.append(kept or x)
            x = y
        last = x.reshape(self.clips, self.length, -1)[:, self.length - self.steps :]
        normed, self.last = kind.norm(network.norm, last.reshape(self.clips * self.steps, -1))
        return kind.exact(self._linear("heads", normed))

    def _forward(self, index: int, x: Array, keep: bool) -> tuple[Array, _Kept | None]:
        kind, block, at = self.kind, self.network.blocks[index], f"blocks.{index}"
        normed, first = kind.norm(block.attention_norm, x)
        qkv = self._linear(f"{at}.qkv", normed)
        heard, hearing = kind.attend(self._parts(qkv, 3), self.seen, causal=True)
        x = x + self._linear(f"{at}.out", heard)
        then = query = pair = told = telling = steep = None
        if self.crosses:
            normed, then = kind.norm(block.cross.norm, x)
            query = self._linear(f"{at}.cross.qkv", normed, 0, 1)
            pair = self._linear(f"{at}.cross.qkv", self.text, 1, 3)
            given = self._parts(query, 1) + self._parts(pair, 2)
            told, telling = kind.attend(given, self.seen_text, causal=False)
            x = x + self.share * self._linear(f"{at}.cross.out", told)
        normed, last = kind.norm(block.feed_norm, x)
        active = self._linear(f"{at}.up", normed)
        if keep:
            active, steep = kind.activated(active, self.config.activation)
        else:
            active = kind.activate(active, self.config.activation)
        y = x + self._linear(f"{at}.down", active)
        if not keep:
            return y, None
        if (f"{at}.down", 0) not in self.low:
            active = None
        return y, _Kept(first, qkv, heard, hearing, then, query, pair, told, telling, last, active, steep)

    def _linear(self, path: str, x: Array, first: int = 0, last: int = 0) -> Array:
        """x (rows, in) by a layer with its paths, or by the parts from `first` to `last` of it."""
        layer, names, size = self._matrix(path, first, last)
        y = self.kind.product(layer, x, (first * size, (first + len(names)) * size))
        if learned := self._learned(names):
            low = self.low[path, first] = self.kind.narrow(self.kind.exact(x), self._down(learned).T)
        for index, name, ranks in learned:
            span = index * size, (index + 1) * size
            self.kind.add(y, span, low[:, ranks], self._up(name).T)
            if "lora_magnitude_vector" in self.own[name]:
                ratio = self._ratio(name, layer, (first + index) * size, size)[0]
                self.kind.put(y, span, y[:, span[0] : span[1]] * ratio)
        return y + self.kind.array(layer.bias) if "bias" in layer else y

    def _learned(self, names: Sequence[str]) -> list[tuple[int, str, slice]]:
        """Those modules of a layer beside which something is learned: the place of each among all, its name,
        and its own of what their paths make narrow, side by side."""
        found, end = [], 0
        for index, name in enumerate(names):
            if name in self.own:
                start, end = end, end + self.own[name]["lora_A"].shape[0]
                found.append((index, name, slice(start, end)))
        return found

    def _down(self, learned: Sequence[tuple[int, str, slice]]) -> Array:
        """A of all of them, one below the other."""
        return self.kind.join([self.own[name]["lora_A"] for _, name, _ in learned], axis=0)

    def _up(self, name: str) -> Array:
        """s B of a module."""
        return self.model.scales[name] * self.own[name]["lora_B"]

    def _ratio(self, name: str, layer: Any, start: int, size: int) -> tuple[Array, Array]:
        """The length that is learned for each row by that which it has, and this one."""
        if name not in self._ratios:
            own = self.own[name]
            whole = self.kind.weight(layer, (start, start + size))
            whole = whole + self.model.scales[name] * (own["lora_B"] @ own["lora_A"])
            lengths = (whole * whole).sum(axis=1) ** 0.5
            self._ratios[name] = own["lora_magnitude_vector"] / lengths, lengths
        return self._ratios[name]

    def _matrix(self, path: str, first: int, last: int) -> tuple[Any, list[str], int]:
        """A layer, the names of some of the modules it is made of, and how many rows each of them has."""
        layer, names = layer_at(self.network, path), self.model.names[f"{path}.weight"]
        return layer, names[first : last or len(names)], layer.weight.shape[0] // len(names)

    def _parts(self, x: Array, count: int) -> list[Array]:
        """(B * S, count * D) -> so many (B, S, H, D / H)."""
        laid = x.reshape(self.clips, -1, count, self.config.heads, self.config.width // self.config.heads)
        return [laid[:, :, index] for index in range(count)]

    def _told(self) -> Array:
        """One where a clip's caption is shown, and else zero: (B, 1, 1)."""
        return self.kind.array(np.float32(self.given.told))[:, None, None]

    def _seen(self) -> NDArray[np.bool_] | None:
        """Which positions are real, (B, T); None: all are."""
        mask = self.given.mask
        if self.crosses or mask.all():
            return None
        before, after = (np.ones((self.clips, count), bool) for count in (self._before, self.steps))
        return np.concatenate([before, mask, after], axis=1)

    @property
    def _before(self) -> int:
        """Positions of the melody or style."""
        return 0 if self.given.clip is None else self.given.clip.shape[1]

    def _places(self) -> NDArray[np.float32]:
        """The vectors of the positions, (B or 1, T, D). Where a text is shorter, the music follows sooner."""
        places = np.arange(self.length)[None]
        if not self.crosses:
            lacking = (~self.given.mask).sum(axis=1)[:, None]
            places = places - lacking * (places >= self.length - self.steps)
        table: NDArray[np.float32] = positions(self.length, self.config.width, self.config.clock)[places]
        return table

    # And back

    def _back(self, slope: Array) -> None:
        """From the gradient of the logits to all that are asked for."""
        kind, network = self.kind, self.network
        if self.lowest == len(network.blocks):
            self._linear_back("heads", lambda: kind.normed(network.norm, self.last), slope, through=False)
            return
        slope = self._linear_back("heads", lambda: kind.normed(network.norm, self.last), slope)
        slope = kind.norm_back(network.norm, self.last, slope).reshape(self.clips, self.steps, -1)
        if (ahead := self.length - self.steps) > 0:
            nothing = kind.array(np.zeros((self.clips, ahead, self.config.width), np.float32))
            slope = kind.join([nothing, slope], axis=1)
        slope = slope.reshape(self.clips * self.length, -1)
        self.of_text: Array = 0
        for index in reversed(range(self.lowest, len(network.blocks))):
            kept = self.kept.pop()
            if not isinstance(kept, _Kept):
                kept = self._forward(index, kept, keep=True)[1]
                assert kept is not None
            slope = self._layer_back(index, kept, slope)
            kind.settle(slope, self.of_text, *(each for own in self.found.values() for each in own.values()))
        if self.to_embeddings:
            slope = slope.reshape(self.clips, self.length, -1)
        if self.learns_embeddings:
            self._embedded_back(slope[:, ahead:].reshape(self.clips * self.steps, -1))
        if self.learns_text:
            if not self.crosses:
                self.of_text = (slope[:, self._before : ahead] * self._told()).reshape(len(self.text), -1)
            self._linear_back("text", lambda: self.raw, self.of_text)

    def _layer_back(self, index: int, kept: _Kept, slope: Array) -> Array:
        """The gradient of what went into a layer, from that of what came out."""
        kind, block, at = self.kind, self.network.blocks[index], f"blocks.{index}"
        inner = self._linear_back(f"{at}.down", lambda: kept.active, slope)
        inner *= kept.steep
        inner = self._linear_back(f"{at}.up", lambda: kind.normed(block.feed_norm, kept.last), inner)
        slope = slope + kind.norm_back(block.feed_norm, kept.last, inner)
        if self.crosses:
            inner = self._linear_back(f"{at}.cross.out", lambda: kept.told, self.share * slope)
            given = self._parts(kept.query, 1) + self._parts(kept.pair, 2)
            query, *pair = kind.attend_back(given, kept.telling, inner, self.seen_text, causal=False)
            inner = self._linear_back(
                f"{at}.cross.qkv", lambda: kind.normed(block.cross.norm, kept.then), self._rows([query]), 0, 1
            )
            of_text = self._linear_back(
                f"{at}.cross.qkv", lambda: self.text, self._rows(pair), 1, 3, through=self.learns_text
            )
            if self.learns_text:
                self.of_text = self.of_text + of_text
            slope = slope + kind.norm_back(block.cross.norm, kept.then, inner)
        inner = self._linear_back(f"{at}.out", lambda: kept.heard, slope)
        given = self._parts(kept.qkv, 3)
        inner = self._rows(kind.attend_back(given, kept.hearing, inner, self.seen, causal=True))
        through = index > self.lowest or self.to_embeddings
        inner = self._linear_back(
            f"{at}.qkv", lambda: kind.normed(block.attention_norm, kept.first), inner, through=through
        )
        return slope + kind.norm_back(block.attention_norm, kept.first, inner) if through else slope

    def _linear_back(
        self,
        path: str,
        made_of: Callable[[], Array],
        slope: Array,
        first: int = 0,
        last: int = 0,
        *,
        through: bool = True,
    ) -> Array:
        """The gradient of what went in, from that of what `_linear` made of it; those of the paths are kept.

        made_of  gives what went in, which only paths need
        through  whether that gradient is needed
        """
        kind = self.kind
        layer, names, size = self._matrix(path, first, last)
        learned = self._learned(names)
        if any("lora_magnitude_vector" in self.own[name] for _, name, _ in learned):
            slope = slope + 0  # one of its own, to be written over
        above = []
        given: Array = kind.exact(made_of()) if learned else None
        for index, name, ranks in learned:
            own, low, span = (
                self.own[name],
                self.low[path, first][:, ranks],
                (index * size, (index + 1) * size),
            )
            part = kind.exact(slope[:, span[0] : span[1]])
            if "lora_magnitude_vector" in own:
                start = (first + index) * size
                ratio, lengths = self._ratio(name, layer, start, size)
                made = kind.exact(kind.product(layer, given, (start, start + size)))
                kind.add(made, (0, size), low, self._up(name).T)
                self._find(name, "lora_magnitude_vector", (part * made).sum(axis=0) / lengths)
                part = part * ratio
                kind.put(slope, span, part)
            above.append(kind.narrow(part, self._up(name)))
            self._find(name, "lora_B", self.model.scales[name] * kind.narrow(part.T, low))
        if learned:
            beside = kind.join(above)
            found = kind.narrow(given.T, beside).T
            for _, name, ranks in learned:
                self._find(name, "lora_A", found[ranks])
        if not through:
            return None
        back = kind.product_back(layer, slope, (first * size, (first + len(names)) * size))
        if learned:
            kind.add(back, (0, back.shape[1]), beside, self._down(learned))
        return back

    def _find(self, name: str, leaf: str, gradient: Array) -> None:
        """Add to the gradient of something that is learned."""
        found = self.found[name]
        found[leaf] = found[leaf] + gradient if leaf in found else gradient

    def _rows(self, parts: Sequence[Array]) -> Array:
        """Several (B, S, H, D / H) -> (B * S, all of them side by side)."""
        rows = self.clips * parts[0].shape[1]
        return self.kind.join([part.reshape(rows, -1) for part in parts])

    # Embeddings

    def _embedded(self) -> Array:
        """What is learned beside the embeddings: (B, S, D), or 0."""
        total: Array = 0
        for book, name in enumerate(self.model.names["embeddings"]):
            if name in self.own:
                own = self.own[name]
                low = own["lora_embedding_A"].T[self.kind.array(self.given.tokens[:, book])]
                total = total + self.model.scales[name] * (low @ own["lora_embedding_B"].T)
        return total

    def _embedded_back(self, slope: Array) -> None:
        slope = np.array(self.kind.exact(slope))
        for book, name in enumerate(self.model.names["embeddings"]):
            if name in self.own:
                down, up = (np.array(self.own[name][f"lora_embedding_{which}"]) for which in "AB")
                tokens, scale = self.given.tokens[:, book].reshape(-1), self.model.scales[name]
                rows = np.zeros(down.T.shape, np.float32)
                np.add.at(rows, tokens, scale * (slope @ up))
                self._find(name, "lora_embedding_A", rows.T)
                self._find(name, "lora_embedding_B", scale * (slope.T @ down.T[tokens]))


def targeted(config: Config, targets: Sequence[str]) -> list[str]:
    """The modules whose names end so, as peft finds them; of a word of TARGETS all it stands for.

    Raises OptionError when there is none.
    """
    wanted = [each for target in targets for each in TARGETS.get(target, (target,))]
    layers = [
        name.removesuffix(".weight")
        for path, parts in pieces(config, "transformers").items()
        for name in parts
        if (
            path.startswith("blocks.")
            and path.endswith(("qkv.weight", "out.weight", "up.weight", "down.weight"))
        )
        or path in ("heads.weight", "text.weight")
    ]
    if not config.text_projected:
        layers = [name for name in layers if name != "enc_to_dec_proj"]
    if config.text_in_prefix:
        layers = [name for name in layers if ".encoder_attn." not in name]
    for target in wanted:
        if not any(f".{name}".endswith(f".{target}") for name in layers):
            words = ", ".join((*TARGETS, "fc1", "fc2", "q_proj"))
            raise OptionError(f"targets: the model has no modules called {target}; there are {words}, ...")
    return [name for name in layers if any(f".{name}".endswith(f".{target}") for target in wanted)]


def fresh(
    network: Transformer, modules: Sequence[str], rank: int, seed: int, *, dora: bool = False
) -> Factors:
    """Factors that change nothing yet, as peft begins: A uniform within 1 / sqrt(in), B zero; float32.

    dora  with the length of each row, as it is

    Raises OptionError for a DoRA beside quantised matrices.
    """
    model, rng = Adapted(network, dict.fromkeys(modules, 1.0)), np.random.default_rng(seed)
    places = {
        name: (path.removesuffix(".weight"), index, len(parts))
        for path, parts in model.names.items()
        for index, name in enumerate(parts)
    }
    factors = {}
    for name in modules:
        path, index, count = places[name]
        layer = layer_at(network, path)
        rows, columns = layer.weight.shape
        if isinstance(layer, QuantizedLinear):
            columns = columns * 32 // layer.bits
        rows, bound = rows // count, 1 / math.sqrt(columns)
        down = rng.uniform(-bound, bound, (rank, columns)).astype(np.float32)
        factors[name] = {"lora_A": mx.array(down), "lora_B": mx.zeros((rows, rank))}
        if dora:
            own = mx.array(model.kind.weight(layer, (index * rows, (index + 1) * rows)))
            factors[name]["lora_magnitude_vector"] = mx.linalg.norm(own, axis=1)
    return factors


def layer_at(network: Transformer, path: str) -> Any:
    """A layer by its place, "blocks.0.cross.qkv" say."""
    layer: Any = network
    for part in path.split("."):
        layer = layer[int(part)] if part.isdigit() else getattr(layer, part)
    return layer


def begun(adapter: Adapter) -> tuple[Factors, dict[str, float]]:
    """What an adapter of peft holds, to go on from it: the factors, and s of each module."""
    factors: Factors = {}
    for name, change in adapter.changes.items():
        down, up = (each.read().astype(np.float32) for each in (change.down, change.up))
        if ".embed_tokens." in name:
            factors[name] = {"lora_embedding_A": mx.array(up.T), "lora_embedding_B": mx.array(down.T)}
        else:
            factors[name] = {"lora_A": mx.array(down), "lora_B": mx.array(up)}
        if change.lengths is not None:
            factors[name]["lora_magnitude_vector"] = mx.array(change.lengths.read().astype(np.float32))
    return factors, {name: change.scale for name, change in adapter.changes.items()}

"""From a name or folder to the parts of a model: which files it is made of, and what is loaded when.

Where memory is short a part is given back as soon as its work is done, and read again the next time.
"""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx

from audiogen_core import codecs
from audiogen_core.codec import Autoencoder
from audiogen_core.codecs import oobleck
from audiogen_core.errors import ModelError
from audiogen_core.formats.locate import TORCH_SUFFIXES
from audiogen_core.hub import Plan
from audiogen_core.jobs import Sound
from audiogen_core.lora import Adapter, local
from audiogen_core.models import Fetch, ModelSpec, Shipped, find
from audiogen_core.musicgen.catalog import TEXT_ENCODERS
from audiogen_core.options import Place
from audiogen_core.pretrained import fingerprint
from audiogen_core.settings import read_json
from audiogen_core.t5 import NETWORK, T5Config
from audiogen_core.tokenizer import Tokenizer
from audiogen_core.weights import read_network
from audiogen_mlx.catalog import STABLE_AUDIO
from audiogen_mlx.ops import MlxOps
from audiogen_mlx.stable_audio import read_config, weights
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
from audiogen_mlx.stable_audio.model import DiT
from audiogen_mlx.stable_audio.options import Load, Options
from audiogen_mlx.stable_audio.settings import resolve
from audiogen_mlx.stable_audio.weights import Tables
from audiogen_mlx.t5 import load_t5

CONFIG = "model_config.json"
INDEX = "model_index.json"
_SUFFIXES = (".safetensors", *TORCH_SUFFIXES)
SHARE = 0.6  # of a machine's memory that weights may take before parts are given back


@dataclass(frozen=True)
class Files:
    """Where a model lies. `checkpoint` is its file, or the folder itself in the diffusers layout.

    `adapters` are merged into it.
    """

    folder: Path
    config: Path
    checkpoint: Path
    diffusers: bool
    adapters: tuple[Adapter, ...] = ()

    def fingerprint(self) -> str:
        """16 hex digits that change with the configuration, the size or the beginning of the weights."""
        merged = [file for each in self.adapters for file in each.files]
        return fingerprint(self.config, weight_files(self.checkpoint), merged)

    def read_config(self) -> Config:
        """Its facts. Raises ModelError."""
        if self.diffusers:
            return read_config.read_diffusers(self.folder)
        return read_config.read_stable_audio_tools(self.config)


def weight_files(root: Path) -> list[Path]:
    """A file itself, or all weights below a folder, in order."""
    if root.is_file():
        return [root]
    return sorted(path for path in root.rglob("*") if path.suffix in _SUFFIXES)


def locate(name_or_path: str | Path, *, fetch: Fetch, unlisted: bool = False) -> Files:
    """The files of a catalogue name (fetched when needed), a hub id or a path.

    A path is a folder, a `..._config.json` in it, or a checkpoint beside one. Raises UnknownModel,
    DownloadError or ModelError.
    """
    model = find(STABLE_AUDIO, name_or_path, unlisted=unlisted)
    if isinstance(model, Path):
        return _at(model)
    folder = fetch(model)
    # A repository may hold several models: the entry of the catalogue names the configuration of one.
    named = [file.name for file in model.files if file.name.endswith("_config.json")]
    return _at(folder / named[0]) if named else _at(folder)


def _at(path: Path) -> Files:
    if path.is_dir():
        if (path / INDEX).is_file():
            return Files(path, path / INDEX, path, True)
        if (path / CONFIG).is_file():
            return Files(path, path / CONFIG, checkpoint(path, "model"), False)
        raise ModelError(
            f"{path}: no Stable Audio model in this folder; expected {CONFIG} of stable-audio-tools "
            f"or {INDEX} of diffusers"
        )
    if path.name.endswith("_config.json"):
        return Files(
            path.parent, path, checkpoint(path.parent, path.name.removesuffix("_config.json")), False
        )
    if path.suffix not in _SUFFIXES:
        raise ModelError(f"{path}: neither a folder, nor a configuration, nor a checkpoint")
    for config in (path.with_name(f"{path.stem}_config.json"), path.with_name(CONFIG)):
        if config.is_file():
            return Files(path.parent, config, path, False)
    raise ModelError(f"{path}: has no {CONFIG} beside it; the geometry of a model is never guessed")


def checkpoint(folder: Path, stem: str) -> Path:
    """The checkpoint of that name, or the only one there."""
    for suffix in _SUFFIXES:
        if (folder / f"{stem}{suffix}").is_file():
            return folder / f"{stem}{suffix}"
    own, indexes = folder / f"{stem}.safetensors.index.json", sorted(folder.glob("*.index.json"))
    if own in indexes or len(indexes) == 1:  # of shards
        return own if own in indexes else indexes[0]
    others = sorted(file for file in folder.iterdir() if file.suffix in _SUFFIXES)
    if len(others) == 1:
        return others[0]
    names = f"several ({', '.join(file.name for file in others[:5])}); name one of them" if others else "none"
    raise ModelError(f"{folder}: expected a checkpoint {stem}.safetensors or {stem}.ckpt, found {names}")


@dataclass(frozen=True)
class TextFiles:
    """Folders of a T5: config.json with weights, and tokenizer.json."""

    encoder: Path
    tokenizer: Path


def locate_text(files: Files, config: Config, t5: str | Path | None, *, fetch: Fetch) -> TextFiles:
    """The text encoder: `t5`, or what lies beside the model, or what its configuration names.

    Raises ModelError, saying where it was looked for.
    """
    if t5 is None and files.diffusers:
        return TextFiles(files.folder / "text_encoder", files.folder / "tokenizer")
    if t5 is None:
        for place in (files.folder / config.text.t5, files.folder / "t5", files.folder / "text_encoder"):
            if (place / "config.json").is_file():
                return in_one(place)
    elif Path(t5).expanduser().exists():
        return in_one(Path(t5).expanduser())
    name = str(t5 or config.text.t5)
    spec = TEXT_ENCODERS.get(name.removeprefix("google-t5/"))
    if spec is None:
        raise ModelError(
            f"{files.folder}: the model's text encoder {name!r} is not there, nor in the catalogue; "
            "give the folder of that T5 (--t5 PATH)"
        )
    return in_one(fetch(spec))


def in_one(folder: Path) -> TextFiles:
    """A folder with everything, or with the two folders of diffusers."""
    if (folder / "text_encoder").is_dir() and (folder / "tokenizer").is_dir():
        return TextFiles(folder / "text_encoder", folder / "tokenizer")
    return TextFiles(folder, folder)


class Parts:
    """Loads each part once, and keeps it or not.

    files   the model; `base` is the whole model where these hold a transformer alone
    text    the T5
    dtype   of the network and of T5; the autoencoder runs in float32
    fetch   how an autoencoder that the configuration names is fetched
    frugal  give parts back after use; None decides by the memory of this machine
    """

    def __init__(
        self,
        files: Files,
        text: TextFiles,
        config: Config,
        *,
        dtype: mx.Dtype,
        fetch: Fetch,
        base: Files | None = None,
        frugal: bool | None = None,
    ) -> None:
        self.files, self.base, self.text_files = files, base, text
        self.config, self.dtype, self.fetch = config, dtype, fetch
        if frugal is None:
            frugal = weight_bytes(files, text) > SHARE * machine_memory()
        self.frugal = frugal
        self._text: TextEmbedder | None = None
        self._dit: DiT | None = None
        self._autoencoder: Autoencoder | None = None

    def load(self) -> None:
        """Load what is kept now rather than later, so a fault of a file comes up before any work."""
        self.text()
        self.drop("text")
        self.dit()
        if not self.frugal:
            self.autoencoder()

    @cached_property
    def tables(self) -> Tables:
        """The tensors of the checkpoint, unread."""
        if self.files.diffusers:
            return weights.read_diffusers(self.files.folder)
        tables = weights.read_stable_audio_tools(self.files.checkpoint)
        if self.base is not None and (tables.embedders is None or tables.vae is None):
            whole = weights.read_stable_audio_tools(self.base.checkpoint)
            tables = Tables(tables.dit, tables.embedders or whole.embedders, tables.vae or whole.vae)
        if tables.embedders is None or (tables.vae is None and not self.config.autoencoder):
            raise ModelError(
                f"{self.files.checkpoint}: holds a transformer alone; name the whole model it was trained "
                "from as its base (--base)"
            )
        return tables

    @cached_property
    def _embedders(self) -> tuple[T5Config, Projection | None, dict[str, NumberEmbedder]]:
        """What T5 is, the layer after it, and the embedders of seconds; small, and kept."""
        table = self.tables.embedders
        assert table is not None
        t5 = T5Config.from_dict(read_json(self.text_files.encoder / "config.json"))
        projection = load_projection(self.config, table, t5.width)
        numbers = load_numbers(self.config, table)
        table.finish()
        return t5, projection, numbers

    def text(self) -> TextEmbedder:
        """The text encoder."""
        if self._text is None:
            t5, projection, _ = self._embedders
            tokenizer = Tokenizer.load(self.text_files.tokenizer)
            encoder = load_t5(t5, read_network(self.text_files.encoder, NETWORK), dtype=self.dtype)
            self._text = TextEmbedder(self.config.text, tokenizer, encoder, projection)
        return self._text

    def condition(
        self, prompts: Sequence[str], seconds: Mapping[str, Sequence[float]]
    ) -> tuple[Conditioning, ...]:
        """The conditioning of B prompts, and of B more where 2 B are given; B is how many seconds are."""
        tokens, mask = self.text()(prompts)
        mx.eval(tokens)
        self.drop("text")
        count = len(next(iter(seconds.values())))
        spans = [slice(start, start + count) for start in range(0, len(prompts), count)]
        numbers = self._embedders[2]
        return tuple(assemble(self.config, (tokens[span], mask[span]), numbers, seconds) for span in spans)

    def dit(self) -> DiT:
        """The network."""
        if self._dit is None:
            table = weights.with_adapters(self.config.dit, self.tables.dit, self.files.adapters)
            self._dit = weights.load_dit(self.config.dit, table, self.dtype)
        return self._dit

    def autoencoder(self) -> Autoencoder:
        """The autoencoder: one of audiogen_core by name, diffusers' folder, or what is in the checkpoint."""
        if self._autoencoder is not None:
            return self._autoencoder
        ops, table = MlxOps(), self.tables.vae
        if self.config.autoencoder:
            self._autoencoder = codecs.load_autoencoder(self.config.autoencoder, ops, self.fetch)
        elif self.files.diffusers:
            self._autoencoder = codecs.load_autoencoder(self.files.folder / "vae", ops, self.fetch)
        else:
            assert table is not None
            facts = oobleck.from_stable_audio_tools(read_json(self.files.config))
            self._autoencoder = oobleck.build(facts, oobleck.stable_audio_tools_weights(table, facts), ops)
        return self._autoencoder

    def drop(self, part: Literal["text", "dit", "autoencoder"]) -> None:
        """The work of a part is done: where memory is short it goes."""
        if self.frugal:
            setattr(self, f"_{part}", None)
            gc.collect()
            mx.clear_cache()


def sound(load: Load, options: Options) -> Sound:
    """What a run makes, as far as the catalogue or the files that are here say."""
    from audiogen_core import hub

    found = find(STABLE_AUDIO, load.model, unlisted=load.unlisted)
    if not isinstance(found, Path):
        return Sound(found.sample_rate, found.channels, options.seconds)
    config = locate(found, fetch=hub.here).read_config()
    seconds = options.seconds or config.max_seconds
    if options.bpm is not None and options.bars is not None:
        seconds = options.bars * options.beats_per_bar * 60 / options.bpm
    return Sound(config.sample_rate, config.channels, seconds)


def weight_bytes(files: Files, text: TextFiles) -> int:
    """How large the weight files are."""
    roots = [files.checkpoint, text.encoder]
    return sum(path.stat().st_size for root in roots for path in weight_files(root) if path.is_file())


def machine_memory() -> float:
    """Bytes of memory, infinite where the system does not say."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (ValueError, OSError, AttributeError):
        return float("inf")


def estimate(load: Load, options: Options, *, offline: bool) -> dict[str, Any]:
    """What a run would take: its settings, what is yet to be fetched, bytes of weights. Nothing is fetched.

    For a model that is not here, only what is known of it before. Raises DownloadError when files are missing
    and the hub may not be asked for them.
    """

    def facts(planned: Fetch, missing: Sequence[Plan]) -> dict[str, Any]:
        files = locate(load.model, unlisted=load.unlisted, fetch=planned)
        local(load.lora or (), planned)
        config = files.read_config()
        text = locate_text(files, config, load.t5, fetch=planned)
        settings = resolve(config, options)
        words = None if missing else Tokenizer.load(text.tokenizer)
        to_come = [file for plan in missing for file in plan.wanted if file.name.endswith(_SUFFIXES)]
        return {
            "weight_bytes": weight_bytes(files, text) + sum(file.size or 0 for file in to_come),
            "window_seconds": config.window_seconds,
            **settings.asked,
            "seconds": settings.seconds,
            **settings.conditions,
            "not_followed": words.not_followed(options.prompt, options.negative_prompt) if words else [],
        }

    return estimated(load.model, STABLE_AUDIO, facts, offline=offline, unlisted=load.unlisted)


def estimated(
    name: Place,
    catalog: Mapping[str, ModelSpec | Shipped],
    facts: Callable[[Fetch, Sequence[Plan]], dict[str, Any]],
    *,
    offline: bool,
    unlisted: bool,
) -> dict[str, Any]:
    """An estimate: what is to be fetched of a model, and the facts of one that is here.

    facts  is called with what finds files without fetching them, and the plans of what that did not find
    """
    from audiogen_core import hub

    missing: list[Plan] = []
    policy = hub.Policy(offline=offline, listed=not unlisted, notify=warnings.warn)
    planned = hub.planning(policy, missing)
    model = find(catalog, name, unlisted=unlisted)
    if isinstance(model, ModelSpec):
        planned(model)
    known = {} if missing else facts(planned, missing)
    for plan in missing:
        known |= {"license": plan.spec.license, "page": plan.spec.page, "download_to": str(plan.folder)}
    return {"model": name, "download_bytes": sum(plan.bytes for plan in missing), **known}

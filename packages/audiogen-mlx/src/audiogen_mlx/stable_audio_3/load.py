"""From a name or folder to the parts of a model: which files it is made of, and what is loaded when."""

from __future__ import annotations

import gc
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx

from audiogen_core.codecs import same
from audiogen_core.codecs.same import Same
from audiogen_core.errors import ModelError, OptionError
from audiogen_core.hub import Plan
from audiogen_core.jobs import Sound
from audiogen_core.lora import local
from audiogen_core.models import Fetch, ModelSpec, find
from audiogen_core.pretrained import fingerprint
from audiogen_core.weights import read
from audiogen_mlx import t5gemma
from audiogen_mlx.catalog import STABLE_AUDIO_3
from audiogen_mlx.ops import MlxOps
from audiogen_mlx.stable_audio.conditioning import Conditioning
from audiogen_mlx.stable_audio.load import (
    SHARE,
    TextFiles,
    checkpoint,
    estimated,
    in_one,
    machine_memory,
    weight_files,
)
from audiogen_mlx.stable_audio_3 import weights
from audiogen_mlx.stable_audio_3.conditioning import Embedders, TextEmbedder, assemble
from audiogen_mlx.stable_audio_3.config import Config, read_config, read_diffusers, read_runtime
from audiogen_mlx.stable_audio_3.lora import Asked, Lora
from audiogen_mlx.stable_audio_3.model import DiT
from audiogen_mlx.stable_audio_3.options import Load, Options
from audiogen_mlx.stable_audio_3.settings import resolve
from audiogen_mlx.t5gemma import load_t5gemma

CONFIG = "model_config.json"
INDEX = "model_index.json"
RUNTIME = "dit_*.npz"
NETWORKS = re.compile(r"(^|/)dit_[^/]*\.npz$")
"""Networks of the authors' runtime for Apple's chips, which are told apart by their names."""


@dataclass(frozen=True)
class Files:
    """Where a model lies.

    config      its configuration; diffusers' index; or None, where the authors' runtime has none
    checkpoint  its file; the folder in diffusers' layout; the network of the authors' runtime
    """

    config: Path | None
    checkpoint: Path
    text: TextFiles
    loras: tuple[Path, ...] = ()

    @property
    def folder(self) -> Path:
        """In which everything but the text encoder lies, or begins."""
        return self.checkpoint if self.checkpoint.is_dir() else self.checkpoint.parent

    def fingerprint(self) -> str:
        """16 hex digits that change with the configuration, the size or the beginning of the weights."""
        return fingerprint(self.config or self.checkpoint.with_name(CONFIG), self.weights, self.loras)

    @cached_property
    def weights(self) -> list[Path]:
        """The files of the network, the embedders and the autoencoder."""
        if self.checkpoint.suffix == ".npz":
            sides = weights.runtime_sides(self.checkpoint, read(self.checkpoint))
            return [self.checkpoint, *sides.values()]
        return weight_files(self.checkpoint)

    def read_config(self) -> Config:
        """Its facts. Raises ModelError."""
        if self.config is None:
            network, encoder, decoder = map(read, self.weights)
            return read_runtime(network, encoder, decoder, base="base" in self.checkpoint.stem)
        return read_diffusers(self.checkpoint) if self.config.name == INDEX else read_config(self.config)

    def weight_bytes(self) -> int:
        """How large the weight files are; one that is missing is told when it is read."""
        files = {*self.weights, *weight_files(self.text.encoder)}
        return sum(path.stat().st_size for path in files if path.is_file())


def locate(load: Load, *, fetch: Fetch) -> Files:
    """The files of a catalogue name (fetched when needed), a hub id or a path: a folder, or a file in it.

    Raises UnknownModel, DownloadError or ModelError.
    """
    model = find(STABLE_AUDIO_3, load.model, unlisted=load.unlisted)
    path = model if isinstance(model, Path) else fetch(model)
    if isinstance(model, ModelSpec):  # a repository may hold several networks: an entry names one
        path = next((path / file.name for file in model.files if NETWORKS.search(file.name)), path)
    folder = path if path.is_dir() else path.parent
    loras = tuple(Asked.of(each).path for each in load.lora or ())
    given = None if load.t5 is None else Path(load.t5).expanduser()
    if (folder / INDEX).is_file():
        text = TextFiles(folder / "text_encoder", folder / "tokenizer") if given is None else in_one(given)
        return Files(folder / INDEX, folder, _there(text), loras)
    config = folder / CONFIG
    if path.suffix == ".npz" or any(folder.glob(RUNTIME)):
        file = path if path.suffix == ".npz" else weights.only_file(folder, RUNTIME)
        text = in_one(weights.only_file(folder, "t5gemma*.npz") if given is None else given)
        return Files(config if config.is_file() else None, file, _there(text), loras)
    if not config.is_file():
        raise ModelError(
            f"{folder}: no Stable Audio 3 in this folder; expected {CONFIG} of stable-audio-3, {INDEX} of "
            f"diffusers or {RUNTIME} of the authors' runtime"
        )
    file = path if path.suffix == ".safetensors" else checkpoint(folder, "model")
    text = in_one(folder / read_config(config).text if given is None else given)
    return Files(config, file, _there(text), loras)


def _there(text: TextFiles) -> TextFiles:
    if text.encoder.suffix != ".npz" and not (text.encoder / "config.json").is_file():
        raise ModelError(
            f"{text.encoder}: the model's text encoder, a T5Gemma, is not there; give its folder (--t5 PATH)"
        )
    return text


class Parts:
    """Loads each part once, and keeps it or not.

    dtype   of the network and of T5Gemma; the autoencoder runs in float32
    bits    the network is quantised to, or None
    frugal  give parts back after use; None decides by the memory of this machine
    loras     merged into it, in this order
    interval  noise levels between which they act in the network
    """

    def __init__(
        self,
        files: Files,
        config: Config,
        *,
        dtype: mx.Dtype,
        bits: int | None,
        frugal: bool | None,
        loras: Sequence[Lora] = (),
        interval: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        self.files, self.config, self.dtype, self.bits = files, config, dtype, bits
        self.loras, self.interval = loras, interval
        self.frugal = files.weight_bytes() > SHARE * machine_memory() if frugal is None else frugal
        self._text: TextEmbedder | None = None
        self._dit: dict[bool, DiT] = {}
        self._autoencoder: Same | None = None

    def load(self) -> None:
        """Load what is kept now rather than later, so a fault of a file comes up before any work."""
        self.text()
        self.drop("text")
        self.dit(1.0)
        self.drop("dit")  # a run begins with the text encoder, and there is not to be room for both
        if not self.frugal:
            self.autoencoder()

    @cached_property
    def tables(self) -> weights.Tables:
        """The tensors of the checkpoint, unread. Raises OptionError for what a quantised one cannot do."""
        tables = weights.read_tables(self.files.checkpoint)
        stored = weights.stored_bits(tables.dit)
        if stored is not None and self.bits not in (None, stored):
            raise OptionError(f"{self.files.checkpoint}: quantised to {stored} bits already; leave out bits")
        if self.loras:
            weights.check_plain(stored, self.files.checkpoint)
        return tables

    @cached_property
    def embedders(self) -> Embedders:
        """What seconds and padding become."""
        return Embedders(self.config, weights.with_loras(self.tables, self.loras).embedders)

    def text(self) -> TextEmbedder:
        """The text encoder."""
        if self._text is None:
            folder = self.files.text.encoder
            facts = t5gemma.read_config(folder)
            if facts.width != self.config.dit.cond_dim:
                raise ModelError(
                    f"{folder}: its vectors have {facts.width} numbers, the model takes "
                    f"{self.config.dit.cond_dim}"
                )
            tokenizer = t5gemma.read_tokenizer(self.files.text.tokenizer)
            encoder = load_t5gemma(facts, t5gemma.read(folder), dtype=self.dtype)
            self._text = TextEmbedder(self.config.max_length, tokenizer, encoder)
        return self._text

    def condition(self, prompts: Sequence[str], seconds: Sequence[float]) -> tuple[Conditioning, ...]:
        """The conditioning of B prompts, and of B more where 2 B are given; B is how many seconds are."""
        rows, mask = self.text()(prompts)
        mx.eval(rows)
        self.drop("text")
        count = len(seconds)
        spans = [slice(start, start + count) for start in range(0, len(prompts), count)]
        return tuple(assemble(self.embedders, (rows[span], mask[span]), seconds) for span in spans)

    def dit(self, t: float) -> DiT:
        """The network at a time: with its LoRAs, or without them where they do not act."""
        acts = bool(self.loras) and self.interval[0] <= t <= self.interval[1]
        if acts not in self._dit:
            tables = weights.with_loras(self.tables, self.loras) if acts else self.tables
            self._dit[acts] = weights.load_dit(self.config.dit, tables.dit, self.dtype, self.bits)
        return self._dit[acts]

    def autoencoder(self) -> Same:
        """The autoencoder."""
        if self._autoencoder is None:
            self._autoencoder = same.build(self.config.codec, self.tables.vae, MlxOps())
        return self._autoencoder

    def drop(self, part: Literal["text", "dit", "autoencoder"]) -> None:
        """The work of a part is done: where memory is short it goes."""
        if self.frugal:
            setattr(self, f"_{part}", {} if part == "dit" else None)
            gc.collect()
            mx.clear_cache()


def sound(load: Load, options: Options) -> Sound:
    """What a run makes, as far as the catalogue or the files that are here say."""
    from audiogen_core import hub

    found = find(STABLE_AUDIO_3, load.model, unlisted=load.unlisted)
    seconds = options.seconds
    if options.bpm is not None and options.bars is not None:
        seconds = options.bars * options.beats_per_bar * 60 / options.bpm
    if not isinstance(found, Path):
        return Sound(found.sample_rate, found.channels, seconds)
    config = locate(load, fetch=hub.here).read_config()
    return Sound(config.sample_rate, config.channels, seconds)


def estimate(load: Load, options: Options, *, offline: bool) -> dict[str, Any]:
    """What a run would take: its settings, what is yet to be fetched, bytes of weights. Nothing is fetched.

    For a model that is not here, only what is known of it before. Raises DownloadError when files are missing
    and the hub may not be asked for them.
    """

    def facts(planned: Fetch, missing: Sequence[Plan]) -> dict[str, Any]:
        files = locate(load, fetch=planned)
        local(load.lora or (), planned)
        config = files.read_config()
        settings = resolve(config, options)
        words = None if missing else t5gemma.read_tokenizer(files.text.tokenizer)
        return {
            "weight_bytes": files.weight_bytes(),
            "window_seconds": config.window_seconds,
            **settings.asked,
            "seconds": settings.seconds,
            "not_followed": words.not_followed(options.prompt, options.negative_prompt) if words else [],
        }

    return estimated(load.model, STABLE_AUDIO_3, facts, offline=offline, unlisted=load.unlisted)

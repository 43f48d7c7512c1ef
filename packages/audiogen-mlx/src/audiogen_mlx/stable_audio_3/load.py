"""From a name or folder to the parts of a model: which files it is made of, and what is loaded when."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx

from audiogen_core.codecs import same
from audiogen_core.codecs.same import Same
from audiogen_core.errors import ModelError
from audiogen_core.jobs import Sound
from audiogen_core.models import Fetch, ModelSpec, find
from audiogen_core.settings import read_json
from audiogen_mlx import t5gemma
from audiogen_mlx.catalog import STABLE_AUDIO_3
from audiogen_mlx.ops import MlxOps
from audiogen_mlx.pretrained import fingerprint
from audiogen_mlx.stable_audio.conditioning import Conditioning
from audiogen_mlx.stable_audio.load import SHARE, checkpoint, machine_memory, weight_files
from audiogen_mlx.stable_audio_3 import weights
from audiogen_mlx.stable_audio_3.conditioning import Embedders, TextEmbedder, assemble
from audiogen_mlx.stable_audio_3.config import Config, read_config
from audiogen_mlx.stable_audio_3.model import DiT
from audiogen_mlx.stable_audio_3.options import Load, Options
from audiogen_mlx.stable_audio_3.settings import resolve
from audiogen_mlx.t5gemma import T5GemmaConfig, load_t5gemma
from audiogen_mlx.tokenizer import Tokenizer

CONFIG = "model_config.json"


@dataclass(frozen=True)
class Files:
    """Where a model lies: its configuration, its checkpoint, and the folder of its text encoder."""

    config: Path
    checkpoint: Path
    text: Path

    def fingerprint(self) -> str:
        """16 hex digits that change with the configuration, the size or the beginning of the weights."""
        return fingerprint(self.config, weight_files(self.checkpoint))

    def read_config(self) -> Config:
        """Its facts. Raises ModelError."""
        return read_config(self.config)


def locate(load: Load, *, fetch: Fetch) -> Files:
    """The files of a catalogue name (fetched when needed), a hub id or a path: a folder, or a file in it.

    Raises UnknownModel, DownloadError or ModelError.
    """
    model = find(STABLE_AUDIO_3, load.model, unlisted=load.unlisted)
    path = model if isinstance(model, Path) else fetch(model)
    folder = path if path.is_dir() else path.parent
    config = folder / CONFIG
    if not config.is_file():
        raise ModelError(f"{folder}: no Stable Audio 3 in this folder; expected its {CONFIG}")
    file = path if path.suffix == ".safetensors" else checkpoint(folder, "model")
    return Files(config, file, _text(folder, config, load.t5))


def _text(folder: Path, config: Path, given: str | Path | None) -> Path:
    """The folder of the text encoder: the one given, or the one beside the model that it names."""
    place = Path(given).expanduser() if given is not None else folder / read_config(config).text
    if not (place / "config.json").is_file():
        raise ModelError(
            f"{place}: the model's text encoder, a T5Gemma, is not there; give its folder (--t5 PATH)"
        )
    return place


class Parts:
    """Loads each part once, and keeps it or not.

    dtype   of the network and of T5Gemma; the autoencoder runs in float32
    bits    the network is quantised to, or None
    frugal  give parts back after use; None decides by the memory of this machine
    """

    def __init__(
        self, files: Files, config: Config, *, dtype: mx.Dtype, bits: int | None, frugal: bool | None
    ) -> None:
        self.files, self.config, self.dtype, self.bits = files, config, dtype, bits
        self.frugal = weight_bytes(files) > SHARE * machine_memory() if frugal is None else frugal
        self._text: TextEmbedder | None = None
        self._dit: DiT | None = None
        self._autoencoder: Same | None = None

    def load(self) -> None:
        """Load what is kept now rather than later, so a fault of a file comes up before any work."""
        self.text()
        self.drop("text")
        self.dit()
        if not self.frugal:
            self.autoencoder()

    @cached_property
    def tables(self) -> weights.Tables:
        """The tensors of the checkpoint, unread."""
        return weights.read_stable_audio_3(self.files.checkpoint)

    @cached_property
    def embedders(self) -> Embedders:
        """What seconds and padding become."""
        return Embedders(self.config, self.tables.embedders)

    def text(self) -> TextEmbedder:
        """The text encoder."""
        if self._text is None:
            folder = self.files.text
            facts = T5GemmaConfig.from_dict(read_json(folder / "config.json"), str(folder / "config.json"))
            if facts.width != self.config.dit.cond_dim:
                raise ModelError(
                    f"{folder}: its vectors have {facts.width} numbers, the model takes "
                    f"{self.config.dit.cond_dim}"
                )
            tokenizer = Tokenizer.load(folder, ends=False)
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

    def dit(self) -> DiT:
        """The network."""
        if self._dit is None:
            self._dit = weights.load_dit(self.config.dit, self.tables.dit, self.dtype, self.bits)
        return self._dit

    def autoencoder(self) -> Same:
        """The autoencoder."""
        if self._autoencoder is None:
            stored = self.tables.vae.apply(same.STABLE_AUDIO_TOOLS)
            self._autoencoder = same.build(self.config.codec, stored, MlxOps())
        return self._autoencoder

    def drop(self, part: Literal["text", "dit", "autoencoder"]) -> None:
        """The work of a part is done: where memory is short it goes."""
        if self.frugal:
            setattr(self, f"_{part}", None)
            gc.collect()
            mx.clear_cache()


def weight_bytes(files: Files) -> int:
    """How large the weight files are."""
    roots = [files.checkpoint, files.text]
    return sum(path.stat().st_size for root in roots for path in weight_files(root))


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
    from audiogen_core import hub

    missing: list[hub.Plan] = []
    policy = hub.Policy(offline=offline, listed=not load.unlisted, notify=warnings.warn)
    planned = hub.planning(policy, missing)
    model = find(STABLE_AUDIO_3, load.model, unlisted=load.unlisted)
    if isinstance(model, ModelSpec):
        planned(model)
    facts: dict[str, Any] = {}
    if not missing:
        files = locate(load, fetch=planned)
        config = files.read_config()
        settings = resolve(config, options)
        facts = {
            "weight_bytes": weight_bytes(files),
            "window_seconds": config.window_seconds,
            **settings.asked,
            "seconds": settings.seconds,
        }
    for plan in missing:
        facts |= {"license": plan.spec.license, "page": plan.spec.page, "download_to": str(plan.folder)}
    return {"model": load.model, "download_bytes": sum(plan.bytes for plan in missing), **facts}

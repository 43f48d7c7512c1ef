"""The files of a MusicGen: which layout a folder has, where each part is, what its settings say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from audiogen_core import lora, pretrained, t5, weights
from audiogen_core.codec import CodecInfo
from audiogen_core.codecs import encodec
from audiogen_core.errors import ModelError
from audiogen_core.formats.locate import TORCH_SUFFIXES, locate, torch_files
from audiogen_core.hub import asking
from audiogen_core.models import Fetch, ModelSpec, Shipped, find
from audiogen_core.musicgen import config as configs
from audiogen_core.musicgen.config import FORMAT, Config
from audiogen_core.musicgen.options import DTYPES, Defaults
from audiogen_core.musicgen.weights import NETWORKS, Layout, matrices
from audiogen_core.settings import as_table, read_json, resolved
from audiogen_core.t5 import T5Config
from audiogen_core.tokenizer import FILE as TOKENIZER
from audiogen_core.weights import Weights

CONFIG = "config.json"
STATE = "state_dict.bin"
COMPRESSION = "compression_state_dict.bin"
PREPROCESSOR = "preprocessor_config.json"
TEXT = "text_encoder."
CODEC = "audio_encoder."

BITS = (4, 8)
"""In which linear layers are stored quantised."""

CODEC_SECONDS = 2.0
"""Of audio the codec works off at a time, streaming or not, so that both give the same samples."""


@dataclass(frozen=True)
class Places:
    """Where the parts are that may lie outside a model's folder; None: where the folder or its names say.

    t5         the folder of the text encoder, of a checkpoint that has none
    tokenizer  its tokenizer.json, or the folder of it
    codec      anything `audiogen_core.codecs.load` takes
    mert       the folder of the MERT that hears styles
    fetch      how models of the catalogue are fetched; by default with a DownloadNotice before
    lora       adapters that are merged into it, each by PATH[:STRENGTH]
    """

    t5: str | Path | None = None
    tokenizer: str | Path | None = None
    codec: str | Path | None = None
    mert: str | Path | None = None
    fetch: Fetch = field(default_factory=asking)
    lora: Sequence[str] = ()


class Files:
    """A folder that holds a MusicGen in one of the layouts. Raises ModelError when it does not."""

    @classmethod
    def find(
        cls,
        catalog: Mapping[str, ModelSpec | Shipped],
        name_or_path: str | Path,
        places: Places,
        *,
        unlisted: bool = False,
    ) -> Files:
        """Those of a model of a catalogue, a hub id or a path. Raises UnknownModel, DownloadError."""
        model = find(catalog, name_or_path, unlisted=unlisted)
        return cls(model if isinstance(model, Path) else places.fetch(model), places)

    def __init__(self, path: Path, places: Places | None = None) -> None:
        self.folder = path if path.is_dir() else path.parent
        self.places = places or Places()
        self.layout: Layout
        self.checkpoint = path if path.suffix in (".safetensors", *TORCH_SUFFIXES) else self.folder
        config = self.folder / CONFIG
        if config.is_file() and not (path.suffix in TORCH_SUFFIXES and _is_package(path)):
            self.settings = read_json(config)
            self.layout = "audiogen" if self.settings.get("format") == FORMAT else "transformers"
        else:
            self.checkpoint = _package(path)
            self.settings, self.layout = read_package(self.checkpoint), "audiocraft"

    def fingerprint(self) -> str:
        """16 hex digits that change with the model's files."""
        merged = [file for each in self.adapters for file in each.files]
        return pretrained.fingerprint(self.folder / CONFIG, locate(self.checkpoint).files, merged)

    # What the settings say

    @cached_property
    def config(self) -> Config:
        """The facts of the model. Raises ModelError, which names the folder."""
        try:
            if self.layout == "audiogen":
                return Config.from_dict(self.settings.get("model") or {})
            if self.layout == "audiocraft":
                return configs.from_audiocraft(self.settings, self.t5_config.width)
            preprocessor = self.folder / PREPROCESSOR
            return configs.from_transformers(
                self.settings, read_json(preprocessor) if preprocessor.is_file() else None
            )
        except ModelError as error:
            raise ModelError(f"{self.folder}: {error}") from error

    @cached_property
    def stored_bits(self) -> int | None:
        """Of the linear layers, when they are stored quantised."""
        bits = self.settings.get("bits") if self.layout == "audiogen" else None
        if bits is not None and (type(bits) is not int or bits not in BITS):
            raise ModelError(f"{self.folder / CONFIG}: {bits!r} bits are not known here")
        return bits

    @cached_property
    def stored_dtype(self) -> str:
        """What a converted model is stored in; float32 for all others, however they are stored."""
        dtype = self.settings.get("dtype") if self.layout == "audiogen" else "float32"
        if not isinstance(dtype, str) or dtype not in DTYPES:
            raise ModelError(f"{self.folder / CONFIG}: dtype {dtype!r} is not known here")
        return str(dtype)

    @cached_property
    def defaults(self) -> Defaults:
        """Of the options, for this model. Raises ModelError."""
        return Defaults.from_dict(self.own_defaults)

    @property
    def own_defaults(self) -> dict[str, Any]:
        """Those that differ from every other model's, as they are stored. Raises ModelError."""
        defaults = self.settings.get("defaults", {}) if self.layout == "audiogen" else {}
        if not isinstance(defaults, dict):
            raise ModelError(f"{self.folder / CONFIG}: its defaults are no table")
        return defaults

    @property
    def named_codec(self) -> str | None:
        """The name of the codec that a converted model uses instead of one in its folder."""
        name = self.settings.get("codec") if self.layout == "audiogen" else None
        if not isinstance(name, str | None):
            raise ModelError(f"{self.folder / CONFIG}: the codec {name!r} is no name")
        return name

    @cached_property
    def t5_settings(self) -> dict[str, Any]:
        """transformers' configuration of the text encoder."""
        if self.layout == "audiocraft":
            return read_json(self.t5_folder / CONFIG)
        settings = self.settings.get("text_encoder")
        if not isinstance(settings, dict):
            raise ModelError(f"{self.folder / CONFIG}: says nothing of the text encoder")
        return settings

    @cached_property
    def t5_config(self) -> T5Config:
        return T5Config.from_dict(self.t5_settings)

    # Where the parts are

    @cached_property
    def table(self) -> Weights:
        """All tensors of the checkpoint with its adapters, unread."""
        table = weights.read_network(self.checkpoint, NETWORKS[self.layout])
        table = table.apply([weights.Int8Rows()]) if self.layout == "audiogen" else table
        if not self.adapters:
            return table
        places = matrices(self.config, self.layout, table)
        return lora.merged(table, self.adapters, places, bits=self.stored_bits)

    @cached_property
    def adapters(self) -> list[lora.Adapter]:
        """What is merged into the model, in this order. Raises WeightsError."""
        return [lora.read(lora.Asked.of(each)) for each in self.places.lora]

    @property
    def text_table(self) -> Weights:
        """Those of the text encoder, by their names in transformers' T5EncoderModel."""
        if self.layout == "audiocraft":
            return weights.read_network(self.t5_folder, t5.NETWORK)
        return self.table.below(TEXT)

    @cached_property
    def t5_folder(self) -> Path:
        """The folder of a text encoder outside the checkpoint."""
        if self.places.t5 is not None:
            return Path(self.places.t5).expanduser()
        if (self.folder / "t5" / CONFIG).is_file():
            return self.folder / "t5"
        name = configs.text_encoder_of_audiocraft(self.settings).rpartition("/")[2]
        return pretrained.fetch_text_encoder(name, self.places.fetch, self.folder)

    @cached_property
    def tokenizer_file(self) -> Path:
        """Where the tokenizer is, or should be; from the hub where T5's own is the right one."""
        from audiogen_core.musicgen.catalog import T5_TOKENIZER, T5_VOCABULARY

        if self.places.tokenizer is not None:
            return Path(self.places.tokenizer).expanduser()
        candidates = [self.folder, self.folder / "tokenizer"]
        if self.layout == "audiocraft":
            candidates.append(self.t5_folder)
        for place in candidates:
            if (place / TOKENIZER).is_file():
                return place
        if self.t5_config.vocabulary != T5_VOCABULARY:
            return self.folder
        return self.places.fetch(T5_TOKENIZER)

    @cached_property
    def codec_path(self) -> Path | str:
        """What the codec is loaded from."""
        if self.places.codec is not None:
            return self.places.codec
        if self.layout != "audiocraft":
            return self.named_codec or self.folder
        package = self.folder / COMPRESSION
        if not package.is_file():
            raise ModelError(
                f"{self.folder}: no {COMPRESSION} beside {self.checkpoint.name}; fetch it too, or name a "
                "codec (codec, --codec)"
            )
        pointer = weights.read_checkpoint(package).get("pretrained")
        if pointer is None:
            return package
        from audiogen_core.codecs.catalog import CATALOG

        repo = str(pointer).removeprefix("//pretrained/")
        for spec in CATALOG.values():
            if spec.repo == repo:
                return self.places.fetch(spec)
        raise ModelError(
            f"{package}: points at the codec {repo!r}, which is not in the catalogue; name its folder "
            "(codec, --codec)"
        )

    def look_outside(self) -> None:
        """Ask for the parts that lie outside the folder, as far as what is here says which they are."""
        from audiogen_core.codecs.catalog import CATALOG

        outside = {self.codec_path}
        if self.layout == "audiocraft":
            outside.add(self.t5_folder)
        if self.named_codec in CATALOG and self.places.codec is None:
            outside.add(self.places.fetch(CATALOG[self.named_codec]))
        if all(isinstance(place, str) or place.exists() for place in outside):
            outside.add(self.tokenizer_file)

    @property
    def mert_folder(self) -> Path:
        """Where the MERT is that hears styles; from the hub unless a folder of it is there."""
        from audiogen_core.musicgen.catalog import MERT

        if self.places.mert is not None:
            return Path(self.places.mert).expanduser()
        own = self.folder / "mert"
        return own if own.is_dir() else self.places.fetch(MERT)


def read_package(path: Path) -> dict[str, Any]:
    """The settings in an audiocraft checkpoint, with their references put in. Raises ModelError."""
    settings = weights.setting(weights.read_checkpoint(path), "xp.cfg")
    if settings is None:
        raise ModelError(
            f"{path}: {weights.read(path).begins()}it has no settings (xp.cfg), so it is no audiocraft "
            "checkpoint; save those of the model it was trained from in it, under that key"
        )
    return resolved(as_table(settings, f"{path}: xp.cfg"), f"{path}: xp.cfg")


def _is_package(path: Path) -> bool:
    """Whether a torch file is audiocraft's: it has settings of its own."""
    return weights.setting(weights.read_checkpoint(path), "xp.cfg") is not None


def _package(path: Path) -> Path:
    """audiocraft's checkpoint: the file of a path, or in its folder STATE or the only one but the codec's."""
    files = [path]
    if path.is_dir():
        files = [path / STATE] if (path / STATE).is_file() else torch_files(path)
        files = [file for file in files if file.name != COMPRESSION]
    if len(files) == 1 and files[0].suffix in TORCH_SUFFIXES:
        return files[0]
    where = "in this folder" if path.is_dir() else "in or beside this file"
    names = f"; name one of {', '.join(file.name for file in files[:5])}" if len(files) > 1 else ""
    raise ModelError(
        f"{path}: no MusicGen {where}; expected {CONFIG} of transformers (or of convert), or {STATE} of "
        f"audiocraft{names}"
    )


def check_codec(files: Files, info: CodecInfo) -> None:
    """Raise ModelError when a codec's codes (those of both sides in stereo) are not what the model makes."""
    config = files.config
    more = info.codebooks - config.codebooks
    by_name = files.named_codec is not None and config.channels == 1  # the first books may be enough
    if info.codebook_size != config.codebook_size or more < 0 or (more and not by_name):
        raise ModelError(
            f"{files.folder}: its codec {info.name} has {info.codebooks} codebooks of "
            f"{info.codebook_size}, the model makes {config.codebooks} of {config.codebook_size}"
        )


def codec_tensors(files: Files) -> tuple[Mapping[str, Any], Weights]:
    """The codec as transformers describes it, and its weights by transformers' names. Raises ModelError."""
    if files.layout != "audiocraft" and files.places.codec is None:
        config = files.settings.get("audio_encoder")
        if not isinstance(config, dict):
            raise ModelError(f"{files.folder / CONFIG}: says nothing of the codec")
        return config, files.table.below(CODEC).apply(encodec.TRANSFORMERS)
    path = Path(files.codec_path).expanduser()
    if path.is_dir() and (path / CONFIG).is_file():
        network = weights.Network(encodec.IN_TRANSFORMERS)
        return read_json(path / CONFIG), weights.read_network(path, network).apply(encodec.TRANSFORMERS)
    if path.is_file() and path.name != STATE:
        table = weights.read_network(path, encodec.IN_ORIGINAL).apply(encodec.ORIGINAL)
        return encodec.to_transformers(encodec.from_audiocraft(read_package(path))), table
    raise ModelError(f"{path}: not a codec that can be put into the folder; give a transformers folder of it")

"""A MusicGen from its folder: which layout that has, where each part is, and the parts, loaded strictly."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audiogen_core import weights
from audiogen_core.errors import ModelError, OptionError
from audiogen_core.formats.locate import TORCH_SUFFIXES, locate, torch_files
from audiogen_core.hub import asking
from audiogen_core.models import Fetch, find
from audiogen_core.settings import as_table, read_json, resolved
from audiogen_core.weights import Weights
from audiogen_mlx import nn, pretrained, t5
from audiogen_mlx.memory import bounded_cache
from audiogen_mlx.musicgen import config as configs
from audiogen_mlx.musicgen.config import FORMAT, STYLE, Config
from audiogen_mlx.musicgen.mert import Mert
from audiogen_mlx.musicgen.model import Transformer
from audiogen_mlx.musicgen.options import Defaults
from audiogen_mlx.musicgen.style import StyleConditioner, load_style
from audiogen_mlx.musicgen.weights import IGNORED, NETWORKS, Layout, pieces
from audiogen_mlx.nn import DTYPES
from audiogen_mlx.t5 import T5Config, load_t5
from audiogen_mlx.tokenizer import FILE as TOKENIZER
from audiogen_mlx.tokenizer import Tokenizer

if TYPE_CHECKING:
    from audiogen_core.codec import Codec

CONFIG = "config.json"
STATE = "state_dict.bin"
COMPRESSION = "compression_state_dict.bin"
PREPROCESSOR = "preprocessor_config.json"
TEXT = "text_encoder."

CODEC_SECONDS = 2.0
"""Of audio the codec works off at a time, streaming or not, so that both give the same samples."""

BITS = (4, 8)


@dataclass(frozen=True)
class Places:
    """Where the parts are that may lie outside a model's folder; None: where the folder or its names say.

    t5         the folder of the text encoder, of a checkpoint that has none
    tokenizer  its tokenizer.json, or the folder of it
    codec      anything `audiogen_core.codecs.load` takes
    mert       the folder of the MERT that hears styles
    fetch      how models of the catalogue are fetched; by default with a DownloadNotice before
    """

    t5: str | Path | None = None
    tokenizer: str | Path | None = None
    codec: str | Path | None = None
    mert: str | Path | None = None
    fetch: Fetch = field(default_factory=asking)


def find_files(name_or_path: str | Path, places: Places, *, unlisted: bool = False) -> Files:
    """The files of a model from the catalogue, a hub id or a path. Raises as `MusicGen.load` does."""
    from audiogen_mlx.catalog import MUSICGEN

    model = find(MUSICGEN, name_or_path, unlisted=unlisted)
    return Files(model if isinstance(model, Path) else places.fetch(model), places)


class Files:
    """A folder that holds a MusicGen in one of the layouts. Raises ModelError when it does not."""

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
        return pretrained.fingerprint(self.folder / CONFIG, locate(self.checkpoint).files)

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
        if bits is not None and type(bits) is not int:
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
        """All tensors of the checkpoint, unread."""
        table = weights.read_network(self.checkpoint, NETWORKS[self.layout])
        return table.apply([weights.Int8Rows()]) if self.layout == "audiogen" else table

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
        from audiogen_mlx.catalog import T5_TOKENIZER, T5_VOCABULARY

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

    def mert(self) -> Mert:
        """The MERT that hears styles; from the hub unless a folder of it is there."""
        from audiogen_mlx.catalog import MERT

        if self.places.mert is not None:
            return Mert.load(Path(self.places.mert).expanduser())
        own = self.folder / "mert"
        return Mert.load(own if own.is_dir() else self.places.fetch(MERT))


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


class Parts:
    """A MusicGen, loaded: everything strictly, tensor by tensor."""

    def __init__(self, files: Files, *, dtype: str | None = None, bits: int | None = None) -> None:
        from audiogen_core.codecs import load_codec
        from audiogen_mlx.musicgen.stereo import StereoCodec
        from audiogen_mlx.ops import MlxOps

        self.files = files
        self.config = files.config
        self.bits = files.stored_bits or bits
        dtype = dtype or files.stored_dtype
        with bounded_cache():
            self.transformer = load_transformer(
                files.table, self.config, files.layout, dtype=dtype, bits=bits, stored_bits=files.stored_bits
            )
            self.style: StyleConditioner | None = None
            if self.config.style is not None:
                self.style = StyleConditioner(load_style(files.table, self.config.style), files.mert)
            self.t5 = load_t5(files.t5_config, files.text_table, dtype=DTYPES[dtype])
            codec: Codec = load_codec(files.codec_path, MlxOps(), files.places.fetch)
        codec.chunk_seconds = CODEC_SECONDS
        self.codec = StereoCodec(codec) if self.config.channels == 2 else codec
        self._check_codec()

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.load(self.files.tokenizer_file)

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


def load_transformer(
    table: Weights,
    config: Config,
    layout: Layout,
    *,
    dtype: str = "float32",
    bits: int | None = None,
    stored_bits: int | None = None,
) -> Transformer:
    """The transformer with its weights; see `outline`. Raises OptionError, or WeightsError."""
    network = outline(config, dtype=dtype, bits=bits, stored_bits=stored_bits)
    nn.load_strict(
        network,
        table,
        pieces=pieces(config, layout),
        dtype=DTYPES[dtype],
        stored_quantized=stored_bits is not None,
        ignore=ignored(config),
    )
    return network


def outline(
    config: Config, *, dtype: str = "float32", bits: int | None = None, stored_bits: int | None = None
) -> Transformer:
    """A transformer that holds no weights yet: it says which there are, and of which shapes.

    dtype        one of DTYPES, of all weights
    bits         4 or 8 quantises the linear layers without a bias
    stored_bits  of those layers where they are stored quantised

    Raises OptionError for an unknown dtype or number of bits, or a model that cannot be quantised.
    """
    if dtype not in DTYPES:
        raise OptionError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    if bits is not None and bits not in BITS:
        raise OptionError(f"bits must be one of {', '.join(map(str, BITS))}, got {bits}")
    if stored_bits is not None and bits not in (None, stored_bits):
        raise OptionError(f"this model is stored in {stored_bits} bits and cannot be loaded in {bits}")
    network = Transformer(config)
    bits = stored_bits or bits
    if bits is not None:
        for name, width in {"width": config.width, "hidden width": config.hidden}.items():
            if width % nn.GROUP:
                raise OptionError(
                    f"this model cannot be quantised: its {name}, {width}, is no multiple of {nn.GROUP}"
                )
        nn.quantize(network, bits)
    return network


def ignored(config: Config) -> tuple[str, ...]:
    """Regular expressions of the names in a checkpoint that are not of the transformer."""
    return IGNORED if config.style is None else (*IGNORED, re.escape(STYLE) + ".*")

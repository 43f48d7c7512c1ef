"""The files of a MusicGen: which layout a folder has, and where each part is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from audiogen_core import weights
from audiogen_core.errors import ModelError
from audiogen_core.formats.locate import locate
from audiogen_core.models import ModelSpec, find
from audiogen_mlx.musicgen import config as configs
from audiogen_mlx.musicgen.config import Config
from audiogen_mlx.musicgen.mert import Mert
from audiogen_mlx.musicgen.options import Defaults
from audiogen_mlx.musicgen.settings_file import CONFIG, STATE, read_json, read_settings, text_encoder_name
from audiogen_mlx.musicgen.weights import DTYPES
from audiogen_mlx.t5 import T5Config
from audiogen_mlx.tokenizer import FILE as TOKENIZER

COMPRESSION = "compression_state_dict.bin"
PREPROCESSOR = "preprocessor_config.json"
TEXT = "text_encoder."

_SAMPLE = 1 << 20  # bytes of a file that tell it from others: its header and some weights

Fetch = Callable[[ModelSpec], Path]
"""Gives the folder of a model in a catalogue, fetching it when needed."""


def fetch_from_hub(spec: ModelSpec) -> Path:
    """With the settings of the environment, and silently."""
    from audiogen_core import hub

    return hub.fetch(spec)


@dataclass(frozen=True)
class Places:
    """Where the parts are that may lie outside a model's folder; None: where the folder or its names say.

    t5         the folder of the text encoder, of a checkpoint that has none
    tokenizer  its tokenizer.json, or the folder of it
    codec      anything `audiogen_core.codecs.load` takes
    mert       the folder of the MERT that hears styles
    fetch      how models of the catalogue are fetched
    """

    t5: str | Path | None = None
    tokenizer: str | Path | None = None
    codec: str | Path | None = None
    mert: str | Path | None = None
    fetch: Fetch = fetch_from_hub


class Files:
    """A folder that holds a MusicGen in one of the layouts. Raises ModelError when it does not."""

    def __init__(self, path: Path, places: Places | None = None) -> None:
        self.folder = path if path.is_dir() else path.parent
        self.places = places or Places()
        self.layout, self.settings = read_settings(self.folder, path)

    @cached_property
    def checkpoint(self) -> Path:
        """The file or folder with the transformer's weights."""
        return self.folder / STATE if self.layout == "audiocraft" else self.folder

    @cached_property
    def table(self) -> weights.Weights:
        """All tensors of the checkpoint, unread."""
        table = weights.read(self.checkpoint)
        return table.apply([weights.Int8Rows()]) if self.layout == "audiogen" else table

    @cached_property
    def stored_bits(self) -> int | None:
        """Of the linear layers, when they are stored quantised."""
        bits = self.settings.get("bits") if self.layout == "audiogen" else None
        return None if bits is None else int(bits)

    @cached_property
    def stored_dtype(self) -> str:
        """What a converted model is stored in; float32 for all others, however they are stored."""
        found = self.settings.get("dtype") if self.layout == "audiogen" else "float32"
        if found not in DTYPES:
            raise ModelError(f"{self.folder / CONFIG}: dtype {found!r} is not known here")
        return str(found)

    @cached_property
    def defaults(self) -> Defaults:
        """Of the options, for this model. Raises ModelError."""
        return Defaults.from_dict(self.own_defaults)

    @property
    def own_defaults(self) -> dict[str, Any]:
        """Those that differ from every other model's, as they are stored. Raises ModelError."""
        found = self.settings.get("defaults", {}) if self.layout == "audiogen" else {}
        if not isinstance(found, dict):
            raise ModelError(f"{self.folder / CONFIG}: its defaults are no table")
        return found

    @cached_property
    def config(self) -> Config:
        """The facts of the model. Raises ModelError, which names the folder."""
        try:
            return self._described()
        except ModelError as error:
            raise ModelError(f"{self.folder}: {error}") from error

    def _described(self) -> Config:
        if self.layout == "audiogen":
            return Config.from_dict(self.settings.get("model") or {})
        if self.layout == "audiocraft":
            return configs.from_audiocraft(self.settings, self.t5_config.width)
        preprocessor = self.folder / PREPROCESSOR
        return configs.from_transformers(
            self.settings, read_json(preprocessor) if preprocessor.is_file() else None
        )

    @cached_property
    def t5_settings(self) -> dict[str, Any]:
        """transformers' configuration of the text encoder."""
        if self.layout == "audiocraft":
            return read_json(self.t5_folder / CONFIG)
        found = self.settings.get("text_encoder")
        if not isinstance(found, dict):
            raise ModelError(f"{self.folder / CONFIG}: says nothing of the text encoder")
        return found

    @cached_property
    def t5_config(self) -> T5Config:
        return T5Config.from_dict(self.t5_settings)

    @cached_property
    def t5_folder(self) -> Path:
        """The folder of a text encoder outside the checkpoint."""
        given = self.places.t5
        if given is not None:
            return Path(given).expanduser()
        if (self.folder / "t5" / CONFIG).is_file():
            return self.folder / "t5"
        from audiogen_mlx.catalog import TEXT_ENCODERS

        name = text_encoder_name(self.settings)
        if name not in TEXT_ENCODERS:
            raise ModelError(
                f"{self.folder}: its text encoder {name!r} is not in the catalogue; give the folder of that "
                "T5 (t5, --t5)"
            )
        return self.places.fetch(TEXT_ENCODERS[name])

    @cached_property
    def tokenizer_file(self) -> Path:
        """Where the tokenizer is, or should be; from the hub where T5's own is the right one."""
        from audiogen_mlx.musicgen.catalog import T5_TOKENIZER, T5_VOCABULARY

        given = self.places.tokenizer
        if given is not None:
            return Path(given).expanduser()
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
        given = self.places.codec
        if given is not None:
            return given
        if self.layout != "audiocraft":
            return self.named_codec or self.folder
        package = self.folder / COMPRESSION
        if not package.is_file():
            raise ModelError(
                f"{self.folder}: no {COMPRESSION} beside {STATE}; fetch it too, or name a codec "
                "(codec, --codec)"
            )
        pointer = weights.read_checkpoint(package).get("pretrained")
        return package if pointer is None else self._pointed(str(pointer))

    @property
    def named_codec(self) -> str | None:
        """The name of the codec that a converted model uses instead of one in its folder."""
        found = self.settings.get("codec") if self.layout == "audiogen" else None
        if not isinstance(found, str | None):
            raise ModelError(f"{self.folder / CONFIG}: the codec {found!r} is no name")
        return found

    def _pointed(self, pointer: str) -> Path:
        """The folder of the codec an audiocraft package points at."""
        from audiogen_core.codecs.catalog import CATALOG

        repo = pointer.removeprefix("//pretrained/")
        for spec in CATALOG.values():
            if spec.repo == repo:
                return self.places.fetch(spec)
        raise ModelError(
            f"{self.folder / COMPRESSION}: points at the codec {repo!r}, which is not in the catalogue; "
            "name its folder (codec, --codec)"
        )

    def fingerprint(self) -> str:
        """16 hex digits that change with the configuration, or the size or beginning of the weights."""
        config = self.folder / CONFIG
        digest = hashlib.sha256(config.read_bytes() if config.is_file() else b"")
        for path in sorted(locate(self.checkpoint).files):
            digest.update(path.stat().st_size.to_bytes(8, "little"))
            with path.open("rb") as file:
                digest.update(file.read(_SAMPLE))
        return digest.hexdigest()[:16]

    def mert(self) -> Mert:
        """The MERT that hears styles; from the hub unless a folder of it is there."""
        from audiogen_mlx.musicgen.mert_spec import MERT

        given = self.places.mert
        if given is None and (self.folder / "mert").is_dir():
            given = self.folder / "mert"
        return Mert.load(self.places.fetch(MERT) if given is None else Path(given).expanduser())


def find_files(name_or_path: str | Path, places: Places, *, unlisted: bool = False) -> Files:
    """The files of a model from the catalogue, a hub id or a path. Raises as `MusicGen.load` does."""
    from audiogen_mlx.musicgen.catalog import MUSICGEN

    found = find(MUSICGEN, name_or_path, unlisted=unlisted)
    return Files(found if isinstance(found, Path) else places.fetch(found), places)


def text_weights(files: Files) -> weights.Weights:
    """The tensors of the text encoder, by their names in transformers' T5EncoderModel."""
    if files.layout == "audiocraft":
        return weights.read(files.t5_folder)
    return files.table.below(TEXT)

"""What a codec makes: `Codes` (discrete) and `Latents` (continuous), and their files."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiogen_core.errors import CodesError, WeightsError
from audiogen_core.files import atomic_path, require_new_file
from audiogen_core.formats.safetensors_file import read_safetensors, write_safetensors
from audiogen_core.formats.stored import StoredArray
from audiogen_core.settings import parse_json
from audiogen_core.values import close_fields, closed

FOREIGN = frozenset(
    f".{suffix}"
    for words in (
        "wav flac ogg oga opus mp3 aif aiff aifc m4a aac mp4 wma webm mkv w64 rf64 au caf mid",
        "npy npz json jsonl toml yaml yml txt md csv html png jpg svg pdf zip gz tar",
        "th pth pt bin ckpt pkl onnx gguf",
    )
    for suffix in words.split()
)
"""Suffixes of other kinds of files, whose readers would not know what codes are."""


@dataclass(frozen=True, eq=False)
class Codes:
    """The codes of one clip.

    values         int32 (codebooks, frames), each in [0, codebook_size)
    codebook_size  entries in one codebook
    frame_rate     frames per second, Hz
    codec          id of the codec that made them; decoding with another is refused
    length         samples of the original clip, or None; the decoded clip is trimmed to it
    scales         float32 (chunks,) loudness of each chunk, for codecs that normalise; else None

    Raises CodesError when values are misshapen, not integers or out of range.
    """

    values: NDArray[np.int32]
    codebook_size: int
    frame_rate: float
    codec: str
    length: int | None = None
    scales: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        close_fields(self, CodesError)
        if self.codebook_size < 1 or not (math.isfinite(self.frame_rate) and self.frame_rate > 0):
            raise CodesError(
                f"codes have codebooks of 1 entry or more and a frame rate above 0, got {self.codebook_size} "
                f"and {self.frame_rate:g} Hz"
            )
        values = self.values
        if values.ndim != 2 or values.shape[0] == 0:
            raise CodesError(f"codes must be (codebooks, frames), got shape {values.shape}")
        if not np.issubdtype(values.dtype, np.integer):
            raise CodesError(f"codes must be integers, got {values.dtype}")
        if values.size and (values.min() < 0 or values.max() >= self.codebook_size):
            raise CodesError(
                f"codes must lie in [0, {self.codebook_size}), got {values.min()} to {values.max()}; "
                "were they made by another codec?"
            )
        values = np.array(values, dtype=np.int32)
        values.setflags(write=False)
        object.__setattr__(self, "values", values)

    def __repr__(self) -> str:
        return f"Codes({self.codebooks} codebooks, {self.frames} frames, {self.duration:.2f} s, {self.codec})"

    @property
    def codebooks(self) -> int:
        return int(self.values.shape[0])

    @property
    def frames(self) -> int:
        return int(self.values.shape[1])

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.frames / self.frame_rate

    @closed(CodesError)
    def save(self, path: str | Path, *, force: bool = False) -> Path:
        """Write as safetensors, atomically. Returns the path.

        force  write over a file that is there

        Raises OptionError when the file is there already, CodesError for a name of another kind.
        """
        # The scales come first, as the library's own writer puts float32 before int32.
        arrays: dict[str, NDArray[Any]] = {}
        if self.scales is not None:
            arrays["scales"] = np.asarray(self.scales, np.float32)
        arrays["codes"] = self.values
        facts = {
            "codebook_size": self.codebook_size,
            "frame_rate": self.frame_rate,
            "codec": self.codec,
            "length": self.length,
        }
        return _save(Path(path), "codes", arrays, facts, force)

    @classmethod
    @closed(CodesError)
    def load(cls, path: str | Path) -> Codes:
        """Read what `save` wrote. Raises CodesError."""
        arrays, facts = _load(Path(path), "codes")
        try:
            return cls(
                values=arrays["codes"],
                codebook_size=int(facts["codebook_size"]),
                frame_rate=float(facts["frame_rate"]),
                codec=str(facts["codec"]),
                length=None if facts["length"] is None else int(facts["length"]),
                scales=arrays.get("scales"),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CodesError(f"{path}: the description of the codes is damaged ({error})") from error


@dataclass(frozen=True, eq=False)
class Latents:
    """The continuous latents of one clip: float32 (channels, frames) at `frame_rate` Hz."""

    values: NDArray[np.float32]
    frame_rate: float
    autoencoder: str
    length: int | None = None

    def __post_init__(self) -> None:
        close_fields(self, CodesError)
        if not self.frame_rate > 0:
            raise CodesError(f"latents have a frame rate above 0, got {self.frame_rate:g} Hz")
        values = np.array(self.values, dtype=np.float32)
        if values.ndim != 2 or values.shape[0] == 0:
            raise CodesError(f"latents must be (channels, frames), got shape {values.shape}")
        if not np.isfinite(values).all():
            raise CodesError("latents must be finite, got NaN or infinity")
        values.setflags(write=False)
        object.__setattr__(self, "values", values)

    def __repr__(self) -> str:
        channels, frames = self.values.shape
        seconds = frames / self.frame_rate
        return f"Latents({channels} channels, {frames} frames, {seconds:.2f} s, {self.autoencoder})"

    @closed(CodesError)
    def save(self, path: str | Path, *, force: bool = False) -> Path:
        """Write as safetensors, atomically. Returns the path.

        force  write over a file that is there

        Raises OptionError when the file is there already, CodesError for a name of another kind.
        """
        facts = {"frame_rate": self.frame_rate, "autoencoder": self.autoencoder, "length": self.length}
        return _save(Path(path), "latents", {"latents": self.values}, facts, force)

    @classmethod
    @closed(CodesError)
    def load(cls, path: str | Path) -> Latents:
        """Read what `save` wrote. Raises CodesError."""
        arrays, facts = _load(Path(path), "latents")
        try:
            return cls(
                values=arrays["latents"],
                frame_rate=float(facts["frame_rate"]),
                autoencoder=str(facts["autoencoder"]),
                length=None if facts["length"] is None else int(facts["length"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CodesError(f"{path}: the description of the latents is damaged ({error})") from error


def check_name(path: Path) -> None:
    """Raise CodesError when a file of codes or latents would look like something else."""
    if path.suffix.lower() in FOREIGN:
        raise CodesError(
            f"{path}: {path.suffix} is the name of another kind of file; codes are safetensors: name it so, "
            "or .codes"
        )


def _save(
    path: Path, kind: str, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, object], force: bool
) -> Path:
    check_name(path)
    require_new_file(path, force)
    tensors = {name: StoredArray.of(array) for name, array in arrays.items()}
    with atomic_path(path, CodesError) as temporary:
        write_safetensors(temporary, tensors, {"audiogen": kind, "facts": json.dumps(facts)})
    return path


def _load(path: Path, kind: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    if not path.exists():
        raise CodesError(f"{path}: no such file")
    try:
        stored, metadata = read_safetensors(path)
        arrays = {name: array.read() for name, array in stored.items()}
    except WeightsError as error:
        if path.suffix.lower() in FOREIGN:
            hint = f"{path.suffix} is the name of another kind of file; `encode` makes {kind} of sounds"
            raise CodesError(f"{path}: not a file of {kind}: {hint}") from error
        raise CodesError(f"{path}: not a file of {kind} ({error})") from error
    if metadata.get("audiogen") != kind:
        raise CodesError(f"{path}: a safetensors file, but not one of audiogen {kind}")
    damaged = f"{path}: the description of the {kind} is damaged"
    facts = parse_json(metadata.get("facts", ""), damaged, CodesError)
    if not isinstance(facts, dict):
        raise CodesError(f"{damaged}: a {type(facts).__name__}")
    for name, value in facts.items():
        if name in _FACTS and not _FACTS[name](value):
            raise CodesError(f"{damaged}: {name} is {value!r}")
    return arrays, facts


_FACTS: Mapping[str, Callable[[Any], bool]] = {
    "codebook_size": lambda value: type(value) is int and 1 <= value <= 1 << 31,
    "frame_rate": lambda value: type(value) in (int, float) and 0 < value < 1e6,
    "codec": lambda value: isinstance(value, str),
    "autoencoder": lambda value: isinstance(value, str),
    "length": lambda value: value is None or (type(value) is int and 0 <= value < 1 << 63),
}
"""What each of the facts of a file must be."""

"""What made a file: `Recipe`, written into the comment tag of every file that is generated."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from audiogen_core.errors import AudioError, OptionError
from audiogen_core.files import require_regular
from audiogen_core.settings import parse_json
from audiogen_core.sound_reader import name_of, open_sound
from audiogen_core.values import closed

_FORMAT = "audiogen recipe 1"

SAMPLES = "samples "
"""What the hash of a clip begins with that came from no file."""


@dataclass(frozen=True)
class Recipe:
    """Everything needed to make a file again.

    package, version  of the program
    model, revision   name or path of the model, and its commit or hash
    seed              of the random numbers, or None where nothing was drawn
    settings          the options, as JSON values
    inputs            sha256 of each file that went in, by its role; of a clip that came from no file,
                      "samples " and that of its rate, its channels and its samples

    In a file it is one line of ASCII JSON in the comment tag, with `"synthetic": true` beside the fields.
    All formats that `Audio.save` writes carry it: WAV (INFO/ICMT), AIFF (ANNO), FLAC and Ogg (a Vorbis
    comment), MP3 (ID3v2 COMM).
    """

    package: str
    version: str
    model: str
    revision: str = ""
    seed: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """One line of JSON: ASCII only, keys sorted, paths and numpy numbers as text and numbers.

        Raises OptionError when a setting is nothing that JSON has.
        """
        facts = {"format": _FORMAT, "synthetic": True, **vars(self)}
        try:
            return json.dumps(facts, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_plain)
        except (TypeError, ValueError) as error:
            raise OptionError(f"the recipe cannot be written as JSON ({error})") from error

    @classmethod
    @closed()
    def from_json(cls, text: str) -> Recipe:
        """Read what `to_json` wrote. Raises AudioError."""
        facts = parse_json(text, "not a recipe", AudioError)
        if not isinstance(facts, dict) or facts.get("format") != _FORMAT:
            raise AudioError(f"not a recipe: JSON, but not of the form {_FORMAT!r}")
        kinds: dict[str, type] = dict.fromkeys(("package", "version", "model", "revision"), str)
        kinds |= {"settings": dict, "inputs": dict}
        wrong = [name for name, kind in kinds.items() if not isinstance(facts.get(name), kind)]
        seed = facts.get("seed")
        if "inputs" not in wrong and any(type(value) is not str for value in facts["inputs"].values()):
            wrong.append("inputs")
        if wrong or not (seed is None or type(seed) is int):
            raise AudioError(f"a damaged recipe: {', '.join(wrong) or 'seed'} missing or of the wrong kind")
        return cls(**{name: facts[name] for name in kinds}, seed=seed)

    @classmethod
    @closed()
    def read(cls, path: str | Path) -> Recipe:
        """The recipe in the comment tag of an audio file. Raises AudioError, also when there is none."""
        recipe = find(path)
        if recipe is None:
            raise AudioError(
                f"{name_of(Path(path))}: carries no recipe; it was made or saved by another program"
            )
        return recipe


@closed(AudioError)
def find(path: str | Path) -> Recipe | None:
    """The recipe of an audio file, or None when its comment is none. Raises AudioError."""
    with open_sound(path) as reader:
        comment = reader.info.comment
    return Recipe.from_json(comment) if f'"{_FORMAT}"' in comment else None


def _plain(value: Any) -> Any:
    """A path as text, a mapping as a dict, a numpy number as a number."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} {value!r}")


@closed(AudioError)
def hash_file(path: str | Path) -> str:
    """sha256 of a file, 64 hex digits. Raises AudioError when it cannot be read."""
    try:
        require_regular(path)
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise AudioError(f"{name_of(Path(path))}: cannot be read ({error.strerror})") from error


def hash_input(clip: Any) -> str:
    """How a recipe knows what goes in, a path or an `Audio`: see `Recipe.inputs`. Raises AudioError."""
    if isinstance(clip, str | Path):
        return hash_file(clip)
    told = f"{clip.sample_rate} Hz, {clip.channels} channels, float32:".encode()
    return SAMPLES + hashlib.sha256(told + clip.samples.astype("<f4").tobytes()).hexdigest()

"""What the site lets one hear: clips that the demo models make while it is built, and their players.

Each clip is the file that its command writes, with its recipe inside. They are made once for a state of the
packages and kept in `.cache/sounds`. With AUDIOGEN_DOCS_QUICK=1, for tests of the pages, a second of composed
music stands in the place of each.
"""

from __future__ import annotations

import contextlib
import hashlib
import html
import io
import json
import os
import shlex
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from commands import program
from matplotlib import rc_context

from audiogen_core import plot
from audiogen_core.audio import Audio
from audiogen_core.compose import write_folder
from audiogen_core.files import atomic_folder
from audiogen_core.recipe import Recipe

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache" / "sounds"
PLACE = "assets/sounds"
"""Where the clips lie in the site."""

PACKAGES = ("audiogen_core", "audiogen_mlx", "audiogen_onnx", "audiogen_minigpt")
_WRITTEN = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
ON_ANY_PAGE = {"figure.facecolor": "none", **dict.fromkeys(_WRITTEN, "#7f8590")}
"""How spectrograms are drawn: on the ground of the page, in a grey that is read on light and on dark ones."""


@dataclass(frozen=True)
class Sound:
    """A clip of the site.

    title, text  what one hears
    command      that makes it, of files of the clips before it
    quick        texts of the command that are others where it is to be short
    """

    title: str
    text: str
    command: str
    quick: tuple[tuple[str, str], ...] = ()


_SHORT = (("--seconds 10", "--seconds 0.5"),)
_FEW = ("--seed", "--steps 1 --seed")

SOUNDS = {
    "piano": Sound(
        "Original: from a text, note after note",
        "MusicGen's demo.",
        'audiogen-mlx musicgen "slow piano in C minor" -m demo -o piano.wav --seconds 10 --seed 1',
        _SHORT,
    ),
    "drawn": Sound(
        "Original: from a text, all at once",
        "Stable Audio's demo.",
        'audiogen-mlx stable-audio "fast chiptune in A minor" -m demo -o drawn.wav --seconds 10 --seed 1',
        (*_SHORT, _FEW),
    ),
    "played": Sound(
        "Original: from nothing",
        "The demo GPT, trained on composed music by `audiogen-minigpt`.",
        "audiogen-minigpt generate -m demo -o played.wav --seconds 10 --seed 3",
        _SHORT,
    ),
    "vamped": Sound(
        "Vamped",
        "VampNet's demo keeps every 7th frame of the piano above, and makes the rest anew.",
        "audiogen-onnx vamp piano.wav -m demo -o vamped.wav --seed 2",
        (_FEW,),
    ),
    "continued": Sound(
        "Continued",
        "The piano comes first, as it is; MusicGen goes on with it from second 10.",
        'audiogen-mlx musicgen "slow piano in C minor" -m demo --continue piano.wav -o continued.wav '
        "--seconds 16 --seed 4",
        (("--seconds 16", "--seconds 1"),),
    ),
    "inpainted": Sound(
        "Inpainted",
        "Seconds 4 to 6 of the chiptune are made anew, all else stays as it was, to the sample.",
        'audiogen-mlx stable-audio "slow piano in A minor" -m demo --init drawn.wav --inpaint 4:6 '
        "-o inpainted.wav --seconds 10 --seed 5",
        (*_SHORT, ("4:6", "0.1:0.3"), _FEW),
    ),
    "looped": Sound(
        "Looped",
        "Two bars that run on from their end to their beginning: the player repeats them.",
        'audiogen-mlx stable-audio "techno beat" -m demo --bpm 120 --bars 2 -o looped.wav --seed 6',
        (_FEW,),
    ),
    "decoded": Sound(
        "Through the codec",
        "The piano as codes of 6 kbit/s, and back.",
        "audiogen-core encode piano.wav -o piano.safetensors --codec demo && "
        "audiogen-core decode piano.safetensors -o decoded.wav",
    ),
}


def make(folder: Path, short: bool = False) -> None:
    """Run the commands of all clips in a folder; `short` makes some tenths of a second of each."""
    with contextlib.chdir(folder):
        for sound in SOUNDS.values():
            for words in commands_of(sound, short):
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                    program(words[0]).main(args=[*words[1:], "-q"], standalone_mode=False)


def commands_of(sound: Sound, short: bool = False) -> list[list[str]]:
    """The calls that make a clip: a program and its arguments."""
    text = sound.command
    for old, new in sound.quick if short else ():
        text = text.replace(old, new)
    return [shlex.split(part) for part in text.split(" && ")]


@cache
def made() -> Path:
    """The folder of all clips, with a spectrogram of each."""
    quick = os.environ.get("AUDIOGEN_DOCS_QUICK") == "1"
    folder = CACHE / (f"composed-{_state()}" if quick else _state(*PACKAGES))
    if not folder.is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        with atomic_folder(folder) as new:
            if quick:
                for path in write_folder(new, minutes=len(SOUNDS) / 60, seed=1, piece_seconds=1):
                    path.rename(new / f"{list(SOUNDS)[int(path.stem[-5:])]}.wav")
            else:
                make(new)
            for name in SOUNDS:
                with rc_context(ON_ANY_PAGE):
                    plot.spectrogram(Audio.load(new / f"{name}.wav"), new / f"{name}.png")
    return folder


def _state(*packages: str) -> str:
    """Hex digits that change with the clips, how they are drawn, and with what packages are made of."""
    commands = {name: commands_of(each) for name, each in SOUNDS.items()}
    digest = hashlib.sha256(repr((commands, ON_ANY_PAGE)).encode())
    for package in packages:
        home = Path(str(import_module(package).__file__)).parent
        for path in sorted(home.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(
                    f"{path.relative_to(home)} {hashlib.sha256(path.read_bytes()).hexdigest()}".encode()
                )
    return digest.hexdigest()[:16]


def files(config: Any) -> list[Any]:
    """The clips and pictures as files of the site."""
    from mkdocs.structure.files import File

    return [
        File.generated(config, f"{PLACE}/{path.name}", abs_src_path=str(path))
        for path in sorted(made().iterdir())
        if path.suffix in (".wav", ".png")
    ]


def player(name: str, *, page: Any) -> str:
    """A player of one clip, with the command that made it."""
    sound = SOUNDS[name]
    return f"{_player(name, page)}\n\n```bash\n{sound.command.replace(' && ', chr(10))}\n```"


def listen(name: str, *, page: Any) -> str:
    """A player of one clip, alone."""
    return _player(name, page)


def gallery(*, page: Any) -> str:
    """All clips: player, spectrogram, command, recipe."""
    parts = []
    for name, sound in SOUNDS.items():
        recipe = json.loads(Recipe.read(made() / f"{name}.wav").to_json())
        shown = html.escape(json.dumps(recipe, indent=2))
        source = f"{_root(page)}{PLACE}/{name}.png"
        parts += [
            f"## {sound.title}",
            sound.text,
            player(name, page=page),
            f'<img src="{source}" alt="Spectrogram of {name}.wav" loading="lazy">',
            f"<details><summary>Recipe in the file</summary><pre>{shown}</pre></details>",
        ]
    return "\n\n".join(parts)


def _player(name: str, page: Any) -> str:
    loop = " loop" if name == "looped" else ""
    source = f"{_root(page)}{PLACE}/{name}.wav"
    return f'<audio controls{loop} preload="metadata" src="{source}" style="width: 100%">{name}.wav</audio>'


def _root(page: Any) -> str:
    """The way from a page to the top of the site."""
    return "../" * page.url.count("/")

"""What the pages of the documentation assume is there: clips, folders of music, models.

A model is a folder of the name that the page uses, so a command finds it where a user's would be fetched.
All are small, with random weights.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

from support.wide_musicgen import widen

FIXTURES = Path(__file__).parents[1] / "fixtures"
MUSICGEN, STABLE_AUDIO = FIXTURES / "musicgen", FIXTURES / "stable-audio"
TOKENIZER = MUSICGEN / "tokenizer" / "tokenizer.json"
CLIP_SECONDS = 3.0


def give(name: str, folder: Path) -> None:
    """Put one thing into a folder: a clip (NAME.wav, or NAME.wav:SECONDS) or what MAKERS has."""
    clip, _, seconds = name.partition(":")
    if clip in MAKERS:
        MAKERS[clip](folder / clip)
    else:
        from audiogen_core.compose import compose

        (folder / clip).parent.mkdir(parents=True, exist_ok=True)
        compose(crc32(clip.encode()), seconds=float(seconds or CLIP_SECONDS)).audio.save(folder / clip)


def _music(folder: Path) -> None:
    from audiogen_core.compose import write_folder

    write_folder(folder, minutes=0.6, seed=1, piece_seconds=6)


def _copy(source: Path) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        shutil.copytree(source, folder)

    return make


def _musicgen(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        shutil.copytree(MUSICGEN / name, folder)
        shutil.copy(TOKENIZER, folder)

    return make


def _wide_musicgen(folder: Path) -> None:
    _musicgen("musicgen-mono")(folder)
    widen(folder)


def _style(folder: Path) -> None:
    from audiogen_core.musicgen.files import Files, Places
    from audiogen_mlx.convert import convert

    places = Places(t5=MUSICGEN / "t5", tokenizer=TOKENIZER, codec=FIXTURES / "encodec" / "32k")
    convert(Files(MUSICGEN / "audiocraft-style", places), folder)


def _stable_audio(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        shutil.copytree(STABLE_AUDIO / name, folder)
        shutil.copytree(STABLE_AUDIO / "t5", folder / "t5")

    return make


def _vampnet(folder: Path) -> None:
    from support.exported import exported

    shutil.copytree(exported(), folder)


MAKERS: dict[str, Callable[[Path], None]] = {
    "my-music": _music,
    "encodec-24khz": _copy(FIXTURES / "encodec" / "24k"),
    "encodec-32khz": _copy(FIXTURES / "encodec" / "32k"),
    "musicgen-small": _wide_musicgen,
    "musicgen-medium": _wide_musicgen,
    "musicgen-melody": _musicgen("musicgen-melody"),
    "musicgen-style": _style,
    "stable-audio-open-small": _stable_audio("tiny-small"),
    "stable-audio-open-1.0": _stable_audio("tiny-1.0"),
    "vampnet": _vampnet,
    "CHECKPOINTS": _copy(FIXTURES / "vampnet" / "small"),
}

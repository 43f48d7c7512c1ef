"""What the demo models take other words for than their own: `prompts.json` of `audiogen_core.prompts`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from captions import MOODS, STYLES, TEMPI
from words import BPM

from audiogen_core.compose import DEFAULT_STYLES
from audiogen_core.compose import STYLES as COMPOSED

MEANS = {
    "drum and bass": "drum and bass beat",
    **dict.fromkeys(("lo-fi", "lofi", "lo fi", "lofi hip hop", "lo-fi hip hop", "chillhop"), "lo-fi beat"),
    **dict.fromkeys(
        ("hiphop", "hip-hop", "hip hop", "rap", "rap beat", "boom bap", "breakbeat"), "hip hop beat"
    ),
    **dict.fromkeys(("drumming", "percussion", "drum kit", "drum loop", "drummer"), "drums"),
    **dict.fromkeys(("8bit", "nintendo", "gameboy", "game boy", "nes", "chip tune", "bitpop"), "chiptune"),
    **dict.fromkeys(("videogame", "computer game", "arcade"), "video game"),
    **dict.fromkeys(("pianist", "pianoforte", "upright piano", "electric piano"), "piano"),
    **dict.fromkeys(("musicbox", "musical box", "celesta", "celeste"), "music box"),
    **dict.fromkeys(("relaxing", "chill", "chilled", "ambient", "sleep", "meditative", "soothing"), "calm"),
    **dict.fromkeys(("4/4", "four on the floor"), ""),  # as everything it has
    **dict.fromkeys(("largo", "lento", "very slow", "sluggish", "unhurried"), "slow"),
    **dict.fromkeys(("moderato", "mid tempo", "midtempo"), "medium tempo"),
    **dict.fromkeys(("presto", "vivace", "rapid", "speedy", "very fast", "up-tempo", "up tempo"), "fast"),
    **dict.fromkeys(("melancholy", "sorrowful", "gloom", "heartbroken", "mournful"), "sad"),
    **dict.fromkeys(("spooky", "eerie", "sinister", "scary"), "dark"),
    **dict.fromkeys(("joyous", "merry", "uplifting", "cheery"), "happy"),
}
"""What people say too, and what it is in words of the captions."""

NEAREST = {
    **dict.fromkeys(("techno", "house", "edm", "trance", "dance music", "disco", "eurodance"), "fast beat"),
    **dict.fromkeys(("house music", "electronic dance music", "dubstep", "hardstyle", "rave"), "fast beat"),
    **dict.fromkeys(("jungle", "drum'n'bass", "drum n bass", "dnb", "d&b"), "fast drum and bass beat"),
    **dict.fromkeys(("rock", "metal", "heavy metal", "punk", "reggae", "trap", "electronic"), "beat"),
    **dict.fromkeys(("country", "soul", "r&b", "latin", "indie", "808"), "beat"),
    **dict.fromkeys(("pop", "pop song", "pop music"), "pop beat"),
    "funk": "funky beat",
    **dict.fromkeys(("guitar", "guitars", "ukulele", "banjo", "mandolin", "sitar"), "plucks and drums"),
    **dict.fromkeys(("bass guitar", "electric guitar", "acoustic guitar"), "plucks and drums"),
    **dict.fromkeys(("harp", "xylophone", "marimba", "vibraphone", "kalimba", "flute"), "music box"),
    **dict.fromkeys(("violin", "violins", "cello", "cellos", "strings", "string quartet", "fiddle"), "piano"),
    **dict.fromkeys(("orchestra", "orchestral", "symphony", "cinematic", "film score"), "piano"),
    **dict.fromkeys(("saxophone", "sax", "trumpet", "trombone", "clarinet", "brass", "horns"), "piano"),
    **dict.fromkeys(("vocals", "vocal", "voice", "voices", "singing", "singer", "choir", "lyrics"), "piano"),
    **dict.fromkeys(("jazz", "blues", "classical", "waltz", "organ", "harpsichord", "accordion"), "piano"),
    **dict.fromkeys(("synthwave", "synthesizer", "synthesiser", "synth lead", "synths", "80s"), "chiptune"),
    **dict.fromkeys(("pad", "pads", "drone", "meditation", "lounge", "new age"), "calm piano"),
    **dict.fromkeys(("no drums", "without drums", "no beat", "without a beat"), "gentle"),
}
"""What the composer has not: the nearest of what it has."""


OWN_TEMPO = {"tempo": "it keeps to a tempo of its own choice"}
"""For a model that learned the words for a tempo and does not follow them; its card has the figures."""

LEADS = {
    "music box": ("music box", "bells"),
    "piano": ("piano", "keys"),
    "beat": ("plucks", "plucked melody"),
    "chiptune": ("square wave",),
}

TONICS = [f"{letter}{sign}" for letter in "ABCDEFG" for sign in ("", "#", "♯", "b", "♭", " sharp", " flat")]


def table(limits: Mapping[str, str] = MappingProxyType({})) -> dict[str, Any]:
    """Everything the file holds. Of keys that no piece has, the mode is left.

    limits  what the model does not follow -> what it does instead
    """
    keys = sorted({key for style in DEFAULT_STYLES for key in COMPOSED[style].keys})
    knows = {
        "style": {style: list(STYLES[style]) for style in DEFAULT_STYLES},
        "lead": {COMPOSED[style].lead: list(LEADS[style]) for style in DEFAULT_STYLES},
        "tempo": {tempo: list(dict.fromkeys(words)) for tempo, words in TEMPI.items()},
        "mood": {mode: list(words) for mode, words in MOODS.items()},
        "key": {key: [key, f"{key[0]}m" if "minor" in key else f"{key[0]} maj"] for key in keys},
    }
    others = {f"{tonic} {mode}" for tonic in TONICS for mode in MOODS}
    others -= {*keys, "A major"}  # a major key, that may be
    nearest = {**NEAREST, **{key.lower(): f"C {key.rpartition(' ')[2]}" for key in sorted(others)}}
    return {"knows": knows, "means": MEANS, "nearest": nearest, "bpm": BPM, "limits": dict(limits)}


def save(path: Path, limits: Mapping[str, str] = MappingProxyType({})) -> Path:
    path.write_text(json.dumps(table(limits), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path

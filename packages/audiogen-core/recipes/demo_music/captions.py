"""What people might type for a composed piece: many phrasings, each leaving something out.

    caption(rng, attributes) -> "a slow piano piece in C minor"

Every word stands for something the piece has, or for nothing at all ("track", "please"); no word of one tempo
or mode is used for another, so a model can learn each from its company.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

STYLES: dict[str, tuple[str, ...]] = {
    "music box": (
        "music box",
        "gentle music box",
        "music box lullaby",
        "lullaby",
        "tinkling music box",
        "soft bells",
        "toy music box",
        "delicate chimes",
        "sparkling bells",
        "lullaby for a music box",
        "child's music box",
        "glockenspiel",
        "nursery tune",
        "bell melody",
        "music box music",
    ),
    "piano": (
        "piano",
        "piano piece",
        "piano and bass",
        "piano chords",
        "piano ballad",
        "piano with bass",
        "grand piano",
        "piano melody",
        "solo piano",
        "ballad",
        "piano song",
        "keyboard piece",
        "chords on a piano",
        "piano with a simple melody",
        "piano music",
        "soft keys",
    ),
    "beat": (
        "beat",
        "drum groove",
        "groove with drums",
        "drum and bass beat",
        "drum beat",
        "groove",
        "hip hop beat",
        "plucked melody over drums",
        "plucks and drums",
        "lo-fi beat",
        "drums and bass",
        "funky beat",
        "kick and snare groove",
        "pop beat",
        "plucked synth with drums",
        "rhythm with bass and plucks",
        "drums",
        "music with drums",
    ),
    "chiptune": (
        "chiptune",
        "8-bit chiptune",
        "video game tune",
        "video game music",
        "8-bit tune",
        "retro game music",
        "8 bit music",
        "arcade game theme",
        "chip music",
        "game theme",
        "square wave melody",
        "arcade music",
        "retro chiptune with drums",
        "bleepy game soundtrack",
        "16-bit console music",
    ),
    "marimba waltz": ("marimba waltz", "waltz for marimba", "waltz", "marimba", "wooden waltz"),
    "organ hymn": ("organ hymn", "church organ", "hymn", "organ", "choral organ"),
}

TEMPI: dict[str, tuple[str, ...]] = {
    "slow": ("slow", "slow", "slow", "calm", "relaxed", "sleepy", "lazy", "peaceful", "downtempo", "adagio"),
    "medium": ("medium", "mid-tempo", "moderate", "steady", "medium tempo", "walking", "andante"),
    "fast": ("fast", "fast", "fast", "upbeat", "quick", "energetic", "lively", "uptempo", "brisk", "allegro"),
}

MOODS: dict[str, tuple[str, ...]] = {
    "major": ("happy", "bright", "cheerful", "joyful", "sunny", "warm"),
    "minor": ("sad", "dark", "melancholic", "moody", "mysterious", "gloomy"),
}

CHARACTERS: dict[str, tuple[str, ...]] = {
    "music box": ("gentle", "soft", "delicate", "tender", "dreamy"),
    "piano": ("gentle", "soft", "tender", "romantic", "mellow"),
    "beat": ("punchy", "driving", "groovy", "bouncy", "cool"),
    "chiptune": ("punchy", "bouncy", "playful", "driving", "retro"),
    "marimba waltz": ("wooden", "dancing"),
    "organ hymn": ("solemn", "sacred"),
}

FILLERS = ("nice", "simple", "short", "beautiful", "little", "catchy", "instrumental")

SHARE_KEY = 0.6  # of captions that name the key
SHARE_MODE = 0.1  # that name its mode alone
SHARE_TEMPO = 0.9
SHARE_BPM = 0.15  # that give the tempo as a number
SHARE_MOOD = 0.15
SHARE_CHARACTER = 0.15
SHARE_FILLER = 0.15


def caption(rng: np.random.Generator, attributes: Mapping[str, Any]) -> str:
    """One way to ask for a piece with these attributes (those of `compose`: style, key, tempo, bpm)."""
    words = _words(rng, attributes)
    key, tempo = _key(rng, str(attributes["key"])), _tempo(rng, attributes)
    mode = str(attributes["key"]).rpartition(" ")[2]
    before = [_pick(rng, MOODS[mode])] if rng.random() < SHARE_MOOD else []
    if rng.random() < SHARE_CHARACTER:
        before.append(_pick(rng, CHARACTERS[str(attributes["style"])]))
    if rng.random() < SHARE_FILLER:
        before.append(_pick(rng, FILLERS))
    number = rng.random() < SHARE_BPM
    after = [key] if key else []
    if number:
        after.insert(int(rng.integers(len(after) + 1)), _bpm(rng, float(attributes["bpm"])))
    elif tempo and rng.random() < 0.75:
        before.insert(int(rng.integers(len(before) + 1)), tempo)
    elif tempo:
        after.insert(int(rng.integers(len(after) + 1)), tempo)
    return _cased(rng, _joined(rng, before, words, after))


_OPENINGS = ("a", "some", "play", "make", "give me some", "compose a", "i want a", "please play a")
_CLOSINGS = ("please", "track", "loop", "song", "for studying", "for a video")
_JOINTS = (", ", " ", " - ", ". ", " / ")
_NUMBERS = (94, 112, 113, 112.5, 125, 95, 110, 90, 120, 115, 130)


def _words(rng: np.random.Generator, attributes: Mapping[str, Any]) -> str:
    choices = STYLES[str(attributes["style"])]
    if rng.random() < 0.35:  # the plain name, as most will type it
        return choices[0]
    return _pick(rng, choices)


def _key(rng: np.random.Generator, key: str) -> str:
    tonic, _, mode = key.rpartition(" ")
    chance = rng.random()
    if chance < SHARE_KEY:
        short = f"{tonic}m" if mode == "minor" else f"{tonic} {mode[:3]}"
        forms = (f"in {key}", f"in {key}", f"in {key}", key, f"in the key of {key}", f"in {short}", short)
        return _pick(rng, forms)
    if chance < SHARE_KEY + SHARE_MODE:
        return _pick(rng, (f"in a {mode} key", mode, f"{mode} scale"))
    return ""


def _tempo(rng: np.random.Generator, attributes: Mapping[str, Any]) -> str:
    share = SHARE_TEMPO * (0.9 if attributes["tempo"] == "medium" else 1.0)
    return _pick(rng, TEMPI[str(attributes["tempo"])]) if rng.random() < share else ""


def _bpm(rng: np.random.Generator, bpm: float) -> str:
    near = [number for number in _NUMBERS if abs(number - bpm) < 6]
    return f"{_pick(rng, ('', 'at '))}{_pick(rng, near)} {_pick(rng, ('bpm', 'BPM', 'beats per minute'))}"


def _joined(rng: np.random.Generator, before: list[str], words: str, after: list[str]) -> str:
    chance = rng.random()
    if chance < 0.15:  # a list of tags
        parts = [*before, words, *after]
        return _pick(rng, _JOINTS).join(parts[i] for i in rng.permutation(len(parts)))
    joint = " " if chance < 0.75 else ", "
    text = joint.join([" ".join([*before, words]), *after])
    if chance > 0.9:
        text = f"{_pick(rng, _OPENINGS)} {text}"
    elif chance > 0.8:
        text = f"{text} {_pick(rng, _CLOSINGS)}"
    return text


def _cased(rng: np.random.Generator, text: str) -> str:
    chance = rng.random()
    if chance < 0.6:
        return text
    if chance < 0.8:
        return text.lower()
    return text[:1].upper() + text[1:] if chance < 0.97 else text.upper()


def _pick(rng: np.random.Generator, choices: Sequence[Any]) -> Any:
    return choices[int(rng.integers(len(choices)))]

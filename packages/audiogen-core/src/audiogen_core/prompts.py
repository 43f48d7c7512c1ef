"""What a small model makes of the words people type: `prompts.json` beside its tokenizer.

A model that learned some hundred words says there which these are, what else means the same, and for what it
has only something near. Models without such a file are given prompts as they were typed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import cycle
from pathlib import Path

from audiogen_core.errors import ModelError
from audiogen_core.settings import from_mapping, read_json

FILE = "prompts.json"
CLOSE = 0.04  # of a tempo that counts as the one asked for, as a share
LEFT_OUT = "it is left out; a negative prompt stays away from it"
SPELT = 0.8
"""How like a word that is known another is that may have been meant for it, as a share."""

ONE = ("tempo", "key")
"""What a piece has one of."""

NOTHING_NEAR = "nothing is near it"
VOICES = (
    *("vocals", "vocal", "vocalist", "voice", "voices", "sung", "singing", "singer", "singers", "chorus"),
    *("choir", "choral", "lyrics", "rapper", "rapping", "a cappella", "acapella", "opera", "humming"),
    *(f"{whose} {what}" for whose in ("female", "male") for what in ("vocals", "vocal", "voice", "singer")),
)
"""Words for what no small model has: it was taught instruments, none of which is near them."""
FILLERS = re.compile(
    "about|all|also|an?|and|any|are|as|at|be|but|by|can|clip|create|do|feel|feeling|feels|for|from|generate|give"
    "|has|have|i|in|into|is|it|its|just|kind|like|make|me|more|music|my|no|not|of|on|only|or|piece|play|please"
    "|really|should|so|some|something|song|sound|sounds|style|that|the|then|there|this|to|track|tune|up|very"
    "|want|which|with|without|would|you|your",
    re.IGNORECASE,
)
"""Words that say nothing of the music, which need not be told when a model passes over them."""


@dataclass(frozen=True)
class Prompts:
    """The words of a model.

    knows    what they are about -> what it can -> the words for it: {"tempo": {"slow": ("slow", "calm")}}
    means    what people say too -> the same in these words
    nearest  what it cannot follow -> the nearest it can, in these words; "" where nothing is near
    bpm      words for a tempo -> its beats per minute
    limits   what it knows the words for and does not follow -> what it does instead
    """

    knows: dict[str, dict[str, tuple[str, ...]]]
    means: dict[str, str]
    nearest: dict[str, str]
    bpm: dict[str, float]
    limits: dict[str, str]

    @classmethod
    def read(cls, folder: Path) -> Prompts | None:
        """Those of a folder, or None where it has none. Raises ModelError for a file that is damaged."""
        path = folder / FILE
        if not path.is_file():
            return None
        read = from_mapping(cls, read_json(path), str(path), ModelError)
        return replace(read, nearest={**read.nearest, **dict.fromkeys(VOICES, "")})

    def literal(self) -> Prompts:
        """The same without what is only near."""
        return replace(self, nearest={})

    def understood(self, text: str) -> tuple[str, dict[str, str]]:
        """A prompt in the model's words, and what it cannot follow: {"violin": "the nearest is piano"}.

        What is nearest to a word is left out where it is of another style than the prompt's own words, or
        than what was nearest to a word before.
        """
        near: dict[str, str] = {}
        won: dict[str, str] = {}  # style -> the word that asks for it
        for found in self._sayings.finditer(text):
            word = " ".join(found[0].lower().split())
            if not (found["no"] or word in self.nearest) and (
                style := self._style(self.means.get(word, word))
            ):
                won.setdefault(style, found[0])

        def known(found: re.Match[str]) -> str:
            said = found[0]
            word = " ".join(said.lower().split())
            if found["no"] and word not in self.means and word not in self.nearest:
                if not found["saying"] or " ".join(found["saying"].lower().split()) not in self.nearest:
                    near[said] = LEFT_OUT  # of what it has not it makes nothing anyhow
                return ""
            if found["bpm"]:
                return self._tempo(said, float(found["bpm"]), near)
            if word in self.nearest:
                nearest = self.nearest[word]
                near[said] = f"the nearest is {nearest}" if nearest else NOTHING_NEAR
                if (style := self._style(nearest)) and style not in won and won:
                    near[said] += f", but {next(iter(won.values()))} won"
                    return ""
                if style:
                    won.setdefault(style, said)
            elif self.means.get(word, word) in self._ignored:
                near[said] = self._ignored[self.means.get(word, word)]
            return {**self.means, **self.nearest}.get(word, said)

        return self._sayings.sub(known, text), near

    def knows_any(self, text: str) -> bool:
        """Whether a prompt says anything that there is a word for."""
        return self._sayings.search(text) is not None

    def torn(self, text: str) -> list[str]:
        """What a prompt in the model's words asks for that cannot be at once: ["slow and fast"]."""
        said = {" ".join(found[0].lower().split()) for found in self._sayings.finditer(text)}
        torn = []
        for about in ONE:
            every = self.knows.get(about, {}).values()
            each = [next((word for word in words if word.lower() in said), "") for words in every]
            if len(asked := [word for word in each if word]) > 1:
                torn.append(" and ".join(asked))
        return torn

    def hint(self, word: str) -> str:
        """What a word that is not known may have been meant for, to be put behind it."""
        known = {part.lower() for saying in self._words for part in saying.split()}
        close = [] if word.lower() in known else get_close_matches(word.lower(), known, n=1, cutoff=SPELT)
        return f" (did you mean {close[0]}?)" if close else ""

    def table(self) -> dict[str, dict[str, str]]:
        """Everything."""
        known = {
            about: {name: ", ".join(words) for name, words in names.items()}
            for about, names in self.knows.items()
        }
        tempi = {word: f"{bpm:g}" for word, bpm in self.bpm.items()}
        same = {"the same as": self.means, "only near": self.nearest, "not followed": self.limits}
        return {**known, "bpm": tempi, **same}

    def shown(self) -> dict[str, dict[str, str]]:
        """Everything, to be read by people: words for one thing stand together."""
        together = {"the same as": _together(self.means), "only near": _together(self.nearest)}
        every = {"for example": self._examples(), **self.table(), **together}
        return {about: rows for about, rows in every.items() if rows}

    def _examples(self) -> dict[str, str]:
        """A prompt for each style."""
        styles, tempi, keys = (list(self.knows.get(about, {})) for about in ("style", "tempo", "key"))
        parts = zip(styles, cycle(tempi or [""]), cycle(keys), strict=False)
        return {style: f"{tempo} {style} in {key}".strip() for style, tempo, key in parts}

    def _style(self, words: str) -> str | None:
        """The style that some of the model's words ask for, if any."""
        named = [(word, style) for style, each in self.knows.get("style", {}).items() for word in each]
        said = [each for each in named if re.search(rf"(?<!\w){re.escape(each[0])}(?!\w)", words.lower())]
        return max(said, key=lambda each: len(each[0]))[1] if said else None

    def _tempo(self, said: str, wanted: float, near: dict[str, str]) -> str:
        word, bpm = min(self.bpm.items(), key=lambda each: abs(each[1] - wanted))
        if "tempo" in self.limits:
            near[said] = self.limits["tempo"]
        elif abs(bpm - wanted) > CLOSE * wanted:
            near[said] = f"the nearest is {word}, {bpm:g} bpm"
        return word

    @property
    def _ignored(self) -> dict[str, str]:
        """Words that are known and not followed -> what it does instead."""
        return {
            word.lower(): instead
            for about, instead in self.limits.items()
            for words in self.knows.get(about, {}).values()
            for word in words
        }

    @property
    def _words(self) -> list[str]:
        """All words: the model's own, and those that stand for them or near them."""
        own = [word for names in self.knows.values() for words in names.values() for word in words]
        return [*own, *self.means, *self.nearest]

    @property
    def _sayings(self) -> re.Pattern[str]:
        """Anything there is a word for, the longest first: "hip hop beat" is known, "hip hop" another's."""
        sayings = sorted(self._words, key=len, reverse=True)
        words = "|".join(re.escape(saying).replace(r"\ ", r"\s+") for saying in sayings)
        number = r"(?P<bpm>\d{1,4}(?:\.\d+)?)\s*(?:bpm|beats\s+per\s+minute)"
        no = r"(?:(?P<no>no|not|without)\s+(?:(?:an?|any)\s+)?)?"
        return re.compile(rf"(?<!\w){no}(?:{number}|(?P<saying>{words}))(?!\w)", re.IGNORECASE)


def _together(words: dict[str, str]) -> dict[str, str]:
    """What they stand for -> all words for it."""
    said: dict[str, list[str]] = {}
    for word, meant in words.items():
        said.setdefault(meant or "(nothing)", []).append(word)
    return {meant: ", ".join(each) for meant, each in said.items()}

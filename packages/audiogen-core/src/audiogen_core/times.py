"""Lengths of time as people write them: "45s", "10m", "1h30m", "1:30"."""

from __future__ import annotations

import re
from contextlib import suppress

from audiogen_core.errors import OptionError

LONGEST = 60
"""Characters of a time; no more are looked at."""

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}
_NUMBER = r"\d+(?:\.\d*)?|\.\d+"
_WITH_UNITS = re.compile("".join(f"(?:({_NUMBER})\\s*{each})?\\s*" for each in _UNITS))


def parse_time(text: str) -> float:
    """Seconds of a duration such as "45s", "10m", "1.5h", "1h30m" or "1:30". Raises OptionError.

    A number alone is refused: whoever writes 10 may mean minutes or seconds.
    """
    told = " ".join(text.lower().split())
    if re.fullmatch(_NUMBER, told):
        raise OptionError(f"{text!r} is no duration without a unit; write {told}s, {told}m or {told}h")
    seconds = _read(told)
    if not seconds:
        raise OptionError(f"{text!r} is no duration; write for example 45s, 10m or 1h30m")
    return seconds


def time_in(text: str, unit: float = 1.0) -> float:
    """As `parse_time`, in units of so many seconds; a number alone is in that unit. Raises OptionError."""
    with suppress(ValueError):
        return float(text)
    seconds = _read(" ".join(text.lower().split()))
    if seconds is None:
        raise OptionError(f"{text!r} is no time; write for example 5, 5s, 1m or 1:30")
    return seconds / unit


def _read(told: str) -> float | None:
    """Seconds of what has units or colons; None where it is nothing of that kind."""
    if len(told) > LONGEST:
        return None
    found = re.fullmatch(r"(?:(\d+):)?(\d+):(\d\d(?:\.\d*)?)", told) or _WITH_UNITS.fullmatch(told)
    if found is None or not any(found.groups()):
        return None
    return sum(float(part or 0) * each for part, each in zip(found.groups(), _UNITS.values(), strict=True))


def shown_time(seconds: float) -> str:
    """A duration as a person says it, and `parse_time` reads it: "45s", "7m", "1h30m"."""
    if seconds < 100 and round(seconds) != 60:
        return f"{max(1, round(seconds))}s"
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours >= 10:
        return f"{round(seconds / 3600)}h"
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if minutes else "")

"""The family of errors every audiogen package raises.

A message says what was wrong, where, and what to do about it, in one sentence or two.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class AudiogenError(Exception):
    """Base of all errors raised on purpose by the audiogen packages."""


class AudioError(AudiogenError):
    """Audio that is unreadable, empty, too long, not finite or of the wrong shape."""


class AudioMismatch(AudioError):
    """The sample rate or channel count is not the one the codec needs."""


class SoundWarning(UserWarning):
    """Sound that was read or mixed, but not as its file or its user may think."""


class CodesError(AudiogenError):
    """Codes out of range, misshapen, or made by another codec."""


class ModelError(AudiogenError):
    """A model that cannot be found, fetched or loaded."""


class UnknownModel(ModelError):
    """A name that is neither in the catalogue nor a path."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        hint = nearest(name, names, "known names")
        super().__init__(f"unknown model {name!r}: no such folder or file, and not in the catalogue; {hint}")


class DownloadError(ModelError):
    """A download that failed, or is needed while offline."""


class WeightsError(ModelError):
    """Tensors missing, unexpected, misshapen or not finite; or a weight file that is not to be trusted."""


class ManifestError(ModelError):
    """An exported folder that does not match its own description."""


class OptionError(AudiogenError, ValueError):
    """An option outside its range, or options that contradict each other.

    names  of the options it is about; a command puts its own names for them before the message
    """

    def __init__(self, message: str, *names: str) -> None:
        super().__init__(message)
        self.names = names


class MissingDependency(AudiogenError, ImportError):
    """An optional dependency is not installed; the message carries the install line."""

    def __init__(self, what: str, install: str) -> None:
        super().__init__(f"{what} is not installed; install it with: {install}")


class CannotStart(AudiogenError, ImportError):
    """A framework is installed, but does not start on this machine; the message carries the way back."""


def nearest(name: str, known: Iterable[str], otherwise: str = "known") -> str:
    """What a name that is not known may have meant: "did you mean a or b?", or all that are known."""
    names = list(known)
    close = get_close_matches(name, names, n=3, cutoff=0.4)
    return f"did you mean {' or '.join(close)}?" if close else f"{otherwise}: {', '.join(names)}"

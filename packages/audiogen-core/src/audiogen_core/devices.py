"""What computes, by the same words in every framework: the option `--device`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from audiogen_core.errors import OptionError
from audiogen_core.options import Described, option

HELP = "What computes: auto, cpu, gpu, cuda or mps; auto is what the framework takes by itself."

_WORD = re.compile(r"auto|cpu|gpu|mps|cuda(:\d{1,3})?")


def check(name: str) -> None:
    """Raise OptionError for a word that is not one of them. A number says which of several: cuda:1."""
    if not _WORD.fullmatch(name):
        raise OptionError(f"device must be auto, cpu, gpu, cuda, cuda:NUMBER or mps, got {name!r}", "device")


def absent(name: str, framework: str) -> OptionError:
    """What is raised for a device that is not there, or that a framework cannot use."""
    return OptionError(f"device {name} is nothing that {framework} finds here; take auto or cpu", "device")


@dataclass(frozen=True, kw_only=True)
class Computing(Described):
    """What a codec computes with."""

    ops: Annotated[
        str,
        option("Framework of the codec: numpy, torch, torch:cuda, torch:mps.", metavar="NAME", advanced=True),
    ] = "numpy"
    device: Annotated[str, option(HELP)] = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.device)
        if self.device != "auto" and ":" in self.ops:
            raise OptionError(f"ops {self.ops} names a device already; leave out device", "ops", "device")

    @property
    def on(self) -> str:
        """The ops that compute on the device: torch alone knows others than the processor."""
        return self.ops if self.device in ("auto", "cpu") else f"torch:{self.device}"

"""A folder of audio in, a small GPT trained on its codes, and new audio out.

```
from audiogen_minigpt import Generator, TrainConfig, encode, train

encode("music", "tokens")
train(TrainConfig(data="tokens", run="run1", seconds=600))
Generator.load("run1").generate(20).save("new.wav")
```
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType

TYPE_CHECKING = False  # as in typing, which takes longer to import than all else here
if TYPE_CHECKING:
    from typing import Any

    from audiogen_core.dataset.encode import encode, verify
    from audiogen_minigpt.config import ModelConfig
    from audiogen_minigpt.dataset import Dataset
    from audiogen_minigpt.evaluate import evaluate
    from audiogen_minigpt.export import export
    from audiogen_minigpt.generate import Generator
    from audiogen_minigpt.info import info
    from audiogen_minigpt.run import run
    from audiogen_minigpt.settings import TrainConfig
    from audiogen_minigpt.train import train

__all__ = [
    "Dataset",
    "Generator",
    "ModelConfig",
    "TrainConfig",
    "encode",
    "evaluate",
    "export",
    "info",
    "run",
    "train",
    "verify",
]

# Where a name lives, unless in a module here of its own name.
_HOMES = {
    "Dataset": "audiogen_minigpt.dataset",
    "Generator": "audiogen_minigpt.generate",
    "ModelConfig": "audiogen_minigpt.config",
    "TrainConfig": "audiogen_minigpt.settings",
    "encode": "audiogen_core.dataset.encode",
    "verify": "audiogen_core.dataset.encode",
}


class _Package(ModuleType):
    """This package. Importing a submodule does not put it in the place of the function of its name."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (isinstance(value, ModuleType) and name in __all__):
            super().__setattr__(name, value)


def __getattr__(name: str) -> Any:
    """Names are imported when they are first used, so that the command line starts at once."""
    if name == "__version__":
        from audiogen_core.version import version

        return version("audiogen-minigpt")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES.get(name, f"{__name__}.{name}")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


sys.modules[__name__].__class__ = _Package

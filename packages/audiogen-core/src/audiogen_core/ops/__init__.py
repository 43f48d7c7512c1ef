"""The verbs in which every codec is written once (`Ops`), and the adapters that carry them out."""

from __future__ import annotations

from audiogen_core.errors import MissingDependency, OptionError
from audiogen_core.ops.protocol import (
    Attention,
    Float,
    Indices,
    Lstm,
    LstmLayer,
    Ops,
    PadMode,
    Signal,
    State,
    Weight,
)

__all__ = [
    "Attention",
    "Float",
    "Indices",
    "Lstm",
    "LstmLayer",
    "Ops",
    "PadMode",
    "Signal",
    "State",
    "Weight",
    "resolve",
]


def resolve(ops: str | Ops) -> Ops:
    """An adapter from its name: "numpy", "torch", "torch:cuda", "torch:mps"; an adapter passes through.

    Raises OptionError for an unknown name and MissingDependency when the framework is not installed.
    """
    if not isinstance(ops, str):
        return ops
    framework, _, device = ops.partition(":")
    if framework == "numpy" and not device:
        from audiogen_core.ops.numpy_ops import NumpyOps

        return NumpyOps()
    if framework == "torch":
        try:
            from audiogen_core.ops.torch_ops import TorchOps
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
            raise MissingDependency("torch", 'pip install "audiogen-core[torch]"') from error
        return TorchOps(device or "cpu")
    raise OptionError(f"unknown ops {ops!r}; use numpy, torch, torch:cuda or torch:mps")

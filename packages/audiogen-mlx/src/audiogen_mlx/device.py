"""What mlx computes on. It is of the whole process: mlx has one default device."""

from __future__ import annotations

import mlx.core as mx

from audiogen_core.devices import absent, check


def use(name: str) -> None:
    """Compute on this device from now on; auto leaves it as it is. Raises OptionError."""
    check(name)
    if name == "auto":
        return
    kind, _, number = name.partition(":")
    metal, cuda = mx.metal.is_available(), mx.cuda.is_available()
    there = {"cpu": True, "gpu": metal or cuda, "mps": metal, "cuda": cuda}
    if not there[kind] or int(number or 0):  # it computes on the first alone
        raise absent(name, "mlx")
    mx.set_default_device(mx.Device(mx.cpu if kind == "cpu" else mx.gpu))

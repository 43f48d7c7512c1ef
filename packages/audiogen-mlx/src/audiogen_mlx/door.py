"""The moment when mlx is imported, by whomever: before it, `blas` has to load the fast BLAS."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any


class Door:
    """Finds and loads `mlx.core` as Python does, after the BLAS; says why where it does not start, for want
    of NVIDIA's driver, say.

    Nothing else is imported until then, so that `--help` is quick: no subclass of importlib.abc's, either.
    """

    def find_spec(self, name: str, path: Sequence[str] | None, target: object = None) -> ModuleSpec | None:
        if name != "mlx.core":
            return None
        from importlib.machinery import PathFinder

        from audiogen_mlx.blas import use

        use()
        spec = PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            self._loader, spec.loader = spec.loader, self  # type: ignore[assignment]
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        made: ModuleType | None = self._told(self._loader.create_module, spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        self._told(self._loader.exec_module, module)

    def _told(self, step: Callable[[Any], Any], given: Any) -> Any:
        try:
            return step(given)
        except ImportError as error:
            from importlib.metadata import distributions

            from audiogen_core.errors import CannotStart

            named = (str(each.metadata["Name"]) for each in distributions())
            cuda = sorted({name for name in named if name.startswith("mlx-cuda")})
            away = f"pip uninstall {' '.join(cuda)}, then " if cuda else ""
            needs = "mlx for CUDA needs NVIDIA's driver; to use the CPU: " if cuda else ""
            raise CannotStart(
                f"mlx does not start here ({error}); {needs}{away}pip install --force-reinstall 'mlx[cpu]'"
            ) from error


def watch() -> None:
    """Have `use` called when mlx.core is imported."""
    if sys.platform == "linux":
        sys.meta_path.insert(0, Door())

"""A fast BLAS for mlx on Linux CPUs.

mlx's CPU wheel for Linux brings the reference BLAS, whose matrix products take some thirty times as long
as OpenBLAS's. What is found in the process's global symbols before `mlx.core` is imported takes its
place; so a fast one is loaded there as soon as `mlx.core` is being imported, by whomever, once this package
is. On macOS and with mlx's CUDA wheel there is nothing to do.

The environment variable AUDIOGEN_MLX_BLAS may be `off` or the path of a BLAS library. Otherwise the
first of these that computes a small product right is taken: MKL, BLIS or OpenBLAS of this Python
environment (`pip install mkl`, or conda's); OpenBLAS, BLIS or MKL of the system; the package
`scipy-openblas32`, which is installed with this one.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from audiogen_core.threads import VARIABLES, default
from audiogen_core.threads import use as limit_numpy
from audiogen_mlx.elf import ElfError, drop_prefix

VARIABLE = "AUDIOGEN_MLX_BLAS"
INSTALL = "pip install scipy-openblas32"

_PRODUCTS = frozenset({"cblas_sgemm", "cblas_dgemm", "cblas_cgemm"})  # what mlx asks of a BLAS
_PREFIX = "scipy_"
_SYSTEM = (
    "libopenblas.so.0",
    "libopenblas.so",
    "libblis.so.4",
    "libblis.so",
    "libmkl_rt.so.3",
    "libmkl_rt.so.2",
    "libmkl_rt.so",
)
_THREADS = (  # set, get
    ("openblas_set_num_threads", "openblas_get_num_threads"),
    ("scipy_openblas_set_num_threads", "scipy_openblas_get_num_threads"),
    ("MKL_Set_Num_Threads", "MKL_Get_Max_Threads"),
    ("bli_thread_set_num_threads", "bli_thread_get_num_threads"),
)


@dataclass(frozen=True)
class Blas:
    """The BLAS that mlx uses in this process.

    library  its path, or "" for the one of mlx's own wheel
    source   "user", "environment", "system", "package" (scipy-openblas32), "preloaded" (by LD_PRELOAD, say),
             "wheel" (mlx's own, slow on Linux CPUs), or "none" where mlx needs none of this
    threads  of its matrix products; 0 when it does not tell
    notes    why libraries were passed over, one line each
    hint     what the user may do for faster matrix products, in one line, or ""
    """

    library: str
    source: str
    threads: int = 0
    notes: tuple[str, ...] = ()
    hint: str = ""


_used: Blas | None = None
_set: Callable[[int], Any] | None = None
_count: int | None = None


def advice() -> str:
    """What the user may do for faster matrix products, in one sentence, or ""."""
    return use().hint


def use() -> Blas:
    """Load the fast BLAS, once per process, and say which it is. Never raises: mlx works without."""
    global _used
    if _used is None:
        _used = _choose()
    return _used


def describe(*, measure: bool = False) -> dict[str, Any]:
    """What `doctor` shows: library, source, threads, notes, and GFLOP/s of a float32 product if asked.

    The product is 700 x 1024 by 1024 x 1024, best of five, on mlx's default device.
    """
    chosen = use()
    facts: dict[str, Any] = {
        "library": chosen.library or "mlx's own",
        "source": chosen.source,
        "threads": chosen.threads,
        "notes": list(chosen.notes),
        "hint": chosen.hint,
    }
    if measure:
        facts["gflops"] = round(_measure(), 1)
    return facts


def _choose() -> Blas:
    if not _on_reference_blas():
        return Blas("", "none")
    wish = os.environ.get(VARIABLE, "").strip()
    if wish.lower() == "off":
        return Blas("", "wheel", notes=(f"{VARIABLE} is off",))
    if _has(ctypes.CDLL(None), "cblas_sgemm"):
        return _ready(ctypes.CDLL(None), "found in the process", "preloaded", ())
    if "mlx.core" in sys.modules:
        late = "mlx was imported before audiogen_mlx, with its own slow BLAS; import audiogen_mlx first"
        return Blas("", "wheel", notes=(late,), hint=late)
    notes: list[str] = []
    for path, source in _candidates(wish):
        try:
            library = _load(path)
        except (OSError, ElfError) as error:
            absent = str(error).startswith(f"{path}: cannot open shared object file")
            if source != "system" or not absent:
                notes.append(f"{path} is not used: {error}")
            continue
        return _ready(library, path, source, tuple(notes))
    way = f"check {VARIABLE}" if wish else f"install a fast one: {INSTALL}"
    return Blas("", "wheel", notes=tuple(notes), hint=f"matrix products use mlx's own slow BLAS; {way}")


def _on_reference_blas() -> bool:
    """Whether the installed mlx is the CPU wheel for Linux, found without importing it."""
    if sys.platform != "linux":
        return False
    spec = importlib.util.find_spec("mlx")
    places = list(spec.submodule_search_locations or ()) if spec else []
    return any((Path(place).parent / "mlx_cpu.libs").is_dir() for place in places)


def _candidates(wish: str) -> Iterator[tuple[str, str]]:
    if wish:
        yield str(Path(wish).expanduser()), "user"
        return
    for name in reversed(_SYSTEM):  # MKL first: the quickest of them with the few rows of one decoding step
        path = Path(sys.prefix, "lib", name)
        if path.is_file():
            yield str(path), "environment"
    for name in _SYSTEM:
        yield name, "system"
    spec = importlib.util.find_spec("scipy_openblas32")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        for path in sorted((Path(place) / "lib").glob("libscipy_openblas*.so")):
            yield str(path), "package"


def _mkl_can_start(folder: Path) -> bool:
    """MKL ends the process at its first call when its threads are missing, so they are looked for before."""
    for runtime, layer in (("libiomp5.so", "INTEL"), ("libgomp.so.1", "GNU")):
        for path in (str(folder / runtime), runtime):
            try:
                ctypes.CDLL(path)
            except OSError:
                continue
            os.environ.setdefault("MKL_THREADING_LAYER", layer)
            return True
    return False


def _load(path: str) -> ctypes.CDLL:
    """The library, in the global symbols; with plain names if it prefixes them. OSError or ElfError."""
    if "scipy_openblas" in Path(path).name:
        path = _plain_names(path)
    library = ctypes.CDLL(path)
    if "mkl" in Path(path).name and not _mkl_can_start(Path(path).parent):
        raise ElfError("neither libiomp5 nor libgomp is there for its threads")
    if not _has(library, "cblas_sgemm"):
        raise ElfError("it has no cblas_sgemm")
    if not _computes(library):
        raise ElfError("its cblas_sgemm computes a small product wrongly")
    return ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)


def _plain_names(path: str) -> str:
    """A copy of the library in memory, whose products have their plain names. The path of the copy.

    The file stays open as long as the process lives, so that its path keeps meaning this library.
    """
    import mmap

    with Path(path).open("rb") as source, mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as image:
        with memoryview(image) as view:
            edits = drop_prefix(view, _PREFIX, _PRODUCTS)
        copy = os.memfd_create("openblas")
        done = 0
        while done < len(image):
            done += os.sendfile(copy, source.fileno(), done, len(image) - done)
    for place, content in edits:
        os.pwrite(copy, content, place)
    return f"/proc/self/fd/{copy}"


def _computes(library: ctypes.CDLL) -> bool:
    """A product of small whole numbers, which any right BLAS gets exactly, both ways of reading b."""
    m, n, k = 5, 9, 7
    a = [float(i % 11 - 4) for i in range(m * k)]
    b = [float(i % 7 - 3) for i in range(k * n)]
    row, plain, transposed = 101, 111, 112
    for order, width in ((plain, n), (transposed, k)):
        c = (ctypes.c_float * (m * n))()
        library.cblas_sgemm(
            *(row, plain, order, m, n, k, ctypes.c_float(1), (ctypes.c_float * len(a))(*a), k),
            *((ctypes.c_float * len(b))(*b), width, ctypes.c_float(0), c, n),
        )
        at: Callable[[int, int], float] = (
            (lambda p, j: b[p * n + j]) if order == plain else (lambda p, j: b[j * k + p])
        )
        if any(
            c[i * n + j] != sum(a[i * k + p] * at(p, j) for p in range(k)) for i in range(m) for j in range(n)
        ):
            return False
    return True


def _ready(library: ctypes.CDLL, path: str, source: str, notes: tuple[str, ...]) -> Blas:
    """Sets the threads, unless the user did."""
    global _set
    for setter, getter in _THREADS:
        if _has(library, setter) and _has(library, getter):
            _set = getattr(library, setter)
            if not any(os.environ.get(name) for name in VARIABLES):
                _set(default())
            return Blas(path, source, int(getattr(library, getter)()), notes)
    return Blas(path, source, 0, notes)


def threads() -> int:
    """How many threads compute in this process. The environment is asked once: every step asks here."""
    global _count
    _count = _count or default()
    return _count


def set_threads(count: int | None) -> int:
    """Let so many threads compute from now on, by the environment or the cores with None. The number."""
    global _count, _used
    _count = limit_numpy(count)
    chosen = use()
    if _set is not None:
        _set(_count)
        _used = replace(chosen, threads=_count)
    return _count


def _has(library: ctypes.CDLL, name: str) -> bool:
    return getattr(library, name, None) is not None


def _measure() -> float:
    import time

    import mlx.core as mx

    a, b = mx.random.normal((700, 1024)), mx.random.normal((1024, 1024))
    mx.eval(a, b)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        mx.eval(a @ b)
        best = min(best, time.perf_counter() - start)
    return 2 * 700 * 1024 * 1024 / best / 1e9

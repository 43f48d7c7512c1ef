"""Building the packages as a release does, and trying them in bare environments."""

from __future__ import annotations

import atexit
import email
import email.message
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PACKAGES = ("audiogen-core", "audiogen-mlx", "audiogen-onnx", "audiogen-minigpt")

_HIDDEN = ("PYTHONPATH", "AUDIOGEN_MLX_BLAS", "LD_PRELOAD", "VIRTUAL_ENV")


def run(*command: object, **settings: Any) -> str:
    """What a command prints, without the settings of this environment. AssertionError when it fails."""
    environment = {name: value for name, value in os.environ.items() if name not in _HIDDEN}
    environment |= settings.pop("env", {})
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, env=environment, **settings
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def uv() -> str:
    """The program that builds and installs."""
    found = shutil.which("uv")
    assert found, "uv is needed to build the packages"
    return found


@cache
def built() -> Path:
    """A folder with the wheel and the source archive of every package, built once for a run of the tests.

    AUDIOGEN_DIST names a folder of a release that was built already.
    """
    given = os.environ.get("AUDIOGEN_DIST")
    if given:
        return Path(given).resolve()
    out = Path(tempfile.mkdtemp(prefix="audiogen-dist-"))
    atexit.register(shutil.rmtree, out, ignore_errors=True)
    for package in PACKAGES:
        run(uv(), "build", "--package", package, "--no-sources", "--out-dir", out, cwd=ROOT)
    return out


def wheel(package: str) -> Path:
    """The wheel of a package."""
    (found,) = built().glob(f"{package.replace('-', '_')}-*.whl")
    return found


def sdist(package: str) -> Path:
    """The source archive of a package."""
    (found,) = built().glob(f"{package.replace('-', '_')}-*.tar.gz")
    return found


def metadata(path: Path) -> email.message.Message:
    """METADATA of a wheel."""
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def bare(place: Path, *packages: str, extra: str = "") -> Path:
    """A new environment with the wheels of these packages and what they need; returns its Python.

    extra  of the last package
    """
    run(uv(), "venv", "--python", sys.executable, place)
    python = place / "bin" / "python"
    wheels = [str(wheel(package)) for package in packages]
    wheels[-1] += f"[{extra}]" if extra else ""
    run(uv(), "pip", "install", "--python", python, *wheels)
    return python


def site_packages(place: Path) -> Path:
    """Where an environment keeps what is installed."""
    return next((place / "lib").glob("python*")) / "site-packages"


def installed_bytes(place: Path) -> int:
    """Bytes of everything installed."""
    return sum(path.stat().st_size for path in site_packages(place).rglob("*") if path.is_file())


def version() -> str:
    """The version of the workspace."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["version"])

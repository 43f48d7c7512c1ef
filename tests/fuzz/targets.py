"""Fuzz targets: what reads bytes from anywhere. Each must end in a value or in an error of ours."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

from audiogen_core import containers, settings, weights
from audiogen_core.audio import Audio
from audiogen_core.errors import AudiogenError
from audiogen_core.formats.torch_file import read_torch
from audiogen_core.formats.torch_pickle import plain
from audiogen_mlx import sentencepiece
from audiogen_onnx.tensors import Tensors
from support.forge import archive, torch_entries

SETTINGS = {
    b"J": ("x.json", settings.read_json),
    b"T": ("x.toml", settings.read_toml),
    b"Y": ("x.yaml", settings.read_yaml),
}
"""First byte of an input -> its file, and what reads it."""


def pickle(data: bytes) -> None:
    """The program of a torch file; beside it lie 64 bytes of storage."""
    tree = read_torch(_file("x.pth", archive(torch_entries(data, {"0": bytes(64)}))))
    plain(tree)
    for _, stored in weights._leaves(tree):
        stored.read()


def audio(data: bytes) -> None:
    """A sound file. What FFmpeg reads is left out: that runs in a process of its own."""
    path = _file("x.wav", data)
    with path.open("rb") as file:
        if containers.sniff(file, path.name) in containers.FOREIGN:
            return
    Audio.load(path)


def onnx(data: bytes) -> None:
    """A graph, before onnxruntime sees it, and its tensors."""
    tensors = Tensors.open(_file("x.onnx", data))
    for name in tensors:
        tensors[name]


def read_settings(data: bytes) -> None:
    """A file of settings, and its references."""
    if data[:1] in SETTINGS:
        name, read = SETTINGS[data[:1]]
        settings.resolved(read(_file(name, data[1:])), name)


def npz(data: bytes) -> None:
    """An archive of arrays."""
    table = weights.read(_file("x.npz", data))
    for name in table:
        table[name]


def tokenizer(data: bytes) -> None:
    """A SentencePiece model."""
    sentencepiece.read(data, "x")


TARGETS: dict[str, Callable[[bytes], None]] = {
    "pickle": pickle,
    "audio": audio,
    "onnx": onnx,
    "settings": read_settings,
    "npz": npz,
    "tokenizer": tokenizer,
}


def run(target: str, data: bytes) -> None:
    """One input through a target. Raises what is not an error of ours."""
    with suppress(AudiogenError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        TARGETS[target](data)


def _file(name: str, data: bytes) -> Path:
    path = _folder() / name
    path.write_bytes(data)
    return path


@cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="audiogen-fuzz-"))

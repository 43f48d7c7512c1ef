"""Files of torch.save, read without torch: zip archive, restricted pickle, numpy arrays.

Format: torch/serialization.py (zip form, torch 1.6 and later) and torch/_utils.py (the rebuild
functions whose arguments are read here; they are never called).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from audiogen_core.errors import WeightsError
from audiogen_core.formats import torch_pickle
from audiogen_core.formats.stored import (
    ITEM_SIZES,
    Array,
    FileBytes,
    StoredArray,
    checked_shape,
    decode,
    shorten,
)
from audiogen_core.formats.stored_zip import Entry, StoredZip
from audiogen_core.formats.torch_pickle import Global, Held, Stateful

MAX_PICKLE = 8 << 20
"""Bytes of pickle accepted: names, shapes and settings only, as tensor data lies beside it."""

REPEATED = 16 << 20
"""Bytes that all tensors together may have, beyond four times those of the file: tied weights, and the same
tensors under two names, share what is stored once."""

MAX_EXPANDED = 1 << 16
"""Elements a view with repeats (stride 0) may have beyond those of its storage."""

_LEGACY_START = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."

_STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16", "LongStorage": "int64", "IntStorage": "int32",
    "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8", "BoolStorage": "bool",
}  # fmt: skip

_CALLBACKS = {
    f"{package}.callbacks.{name}": name.rpartition(".")[2]
    for package in ("pytorch_lightning", "lightning.pytorch")
    for name in ("model_checkpoint.ModelCheckpoint", "early_stopping.EarlyStopping")
}
"""Classes that old checkpoints of Lightning have as keys of a dictionary: read as plain texts."""

_TYPES = {
    f"{module}.{name}": name
    for module in ("builtins", "__builtin__")
    for name in ("dict", "list", "str", "int", "long", "float", "bool")
} | {"typing.Any": "Any"}
"""Types that settings of OmegaConf are said to have: texts, too."""

_HELD: dict[str, tuple[str, ...]] = {
    "omegaconf.dictconfig.DictConfig": ("_content",),
    "omegaconf.listconfig.ListConfig": ("_content",),
    "omegaconf.base.ContainerMetadata": ("none of it",),
    "omegaconf.base.Metadata": ("none of it",),
    "argparse.Namespace": (),
} | {
    f"omegaconf.nodes.{kind}Node": ("_val",)
    for kind in ("Any", "String", "Integer", "Float", "Boolean", "InterpolationResult")
}
"""Objects with settings in checkpoints of training, and under which key of their state the value is."""


@dataclass(frozen=True)
class _Storage:
    """Flat memory in the archive; dtype None means that the tensor says how to see it."""

    entry: Entry
    dtype: str | None


def read_torch(path: str | Path) -> Any:
    """The object a torch file holds: plain containers, numbers and texts; tensors as StoredArray.

    Raises WeightsError when the file is damaged, of the old non-zip kind, or asks for anything
    but tensors and plain values. Nothing in the file is executed.
    """
    file = FileBytes(path)
    start = file.read(0, min(file.size, len(_LEGACY_START)))
    if start == _LEGACY_START:
        raise WeightsError(
            f"{path}: written by torch before 1.6, in a form that is not read here; resave it once "
            "with torch: torch.save(torch.load(old, weights_only=True), new)"
        )
    if start[:4] != b"PK\x03\x04":
        raise WeightsError(f"{path}: not a torch file; expected the zip archive that torch.save writes")
    archive = StoredZip(file, "a torch file", "torch.save")
    if any(name.endswith("/constants.pkl") for name in archive):
        raise archive.bad("a TorchScript program, not weights; save its state_dict() instead")
    roots = [name.removesuffix("data.pkl") for name in archive if name.partition("/")[2] == "data.pkl"]
    if len(roots) != 1:
        raise archive.bad("no data.pkl in it, so torch.save did not write it")
    (root,) = roots
    if f"{root}byteorder" in archive and archive.read(f"{root}byteorder", 16) != b"little":
        raise WeightsError(f"{path}: written on a big-endian machine; resave it on a little-endian one")
    reader = _Reader(archive, root)
    return torch_pickle.load(
        archive.read(f"{root}data.pkl", MAX_PICKLE),
        reader.allowed,
        reader.persistent,
        str(path),
        most_stored=REPEATED + 4 * file.size,
    )


class _Reader:
    """Turns the few allowed globals and the storage ids of one archive into stored arrays."""

    def __init__(self, archive: StoredZip, root: str) -> None:
        self.archive, self.root = archive, root
        self.storages: dict[str, _Storage] = {}
        calls = {
            "torch._utils._rebuild_parameter": lambda args: _only(args, 3, StoredArray)[0],
            "torch.Size": lambda args: checked_shape(_only(args, 1, tuple)[0], "torch.Size"),
            "torch.device": _device,
            "collections.OrderedDict": _ordered_dict,
            "_codecs.encode": _latin1,
            "numpy.dtype": _numpy_type,
            **{f"{module}.multiarray.scalar": _numpy_scalar for module in ("numpy.core", "numpy._core")},
            **{f"{module}.set": _set for module in ("__builtin__", "builtins")},
            **{name: _held(keys) for name, keys in _HELD.items()},
            "collections.defaultdict": lambda args: {},
            "collections.Counter": lambda args: _only(args, 1, dict)[0],
            "pathlib.PosixPath": lambda args: "/".join(args),
        }
        self.allowed: dict[str, object] = {name: Global(name, call) for name, call in calls.items()}
        for name, build in (("v2", self.tensor), ("v3", self.typed_tensor)):
            name = f"torch._utils._rebuild_tensor_{name}"
            self.allowed[name] = Global(name, build, size=1024)
        self.allowed |= {f"torch.{dtype}": dtype for dtype in ITEM_SIZES} | _CALLBACKS | _TYPES
        names = [f"torch.{name}" for name in _STORAGES] + [
            "torch.storage.UntypedStorage",
            "torch.UntypedStorage",
        ]
        self.allowed |= {name: Global(name) for name in names}

    def persistent(self, identity: object) -> _Storage:
        """The storage that ("storage", type, key, location, elements) names."""
        if type(identity) is not tuple or len(identity) != 5 or identity[0] != "storage":
            raise self.bad("a persistent id that is not a storage")
        _, kind, key, _, count = identity
        if type(kind) is not Global or type(count) is not int or count < 0:
            raise self.bad("a damaged storage id")
        if type(key) is not str or len(key) > 64:  # torch counts them: "0", "1"
            raise self.bad("a damaged storage id")
        name = kind.name.rpartition(".")[2]
        if name not in (*_STORAGES, "UntypedStorage"):
            raise self.bad(f"a storage of type {shorten(kind.name)}")
        dtype = _STORAGES.get(name)
        entry = self.archive.entry(f"{self.root}data/{key}")
        if entry.size != count * (ITEM_SIZES[dtype] if dtype else 1):
            raise self.bad(f"storage {shorten(key)} holds {entry.size} bytes, not {count} elements of {name}")
        if self.storages.setdefault(key, _Storage(entry, dtype)).dtype != dtype:
            raise self.bad(f"storage {shorten(key)} is claimed with two types")
        return self.storages[key]

    def tensor(self, args: tuple[Any, ...]) -> StoredArray:
        """_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks[, metadata])."""
        if len(args) not in (6, 7) or not isinstance(args[0], _Storage) or args[0].dtype is None:
            raise self.bad("a damaged tensor")
        return self.view(args[0], args[0].dtype, args[1:4], args[6:])

    def typed_tensor(self, args: tuple[Any, ...]) -> StoredArray:
        """_rebuild_tensor_v3(storage, offset, size, stride, requires_grad, hooks, dtype[, metadata])."""
        if len(args) not in (7, 8) or not isinstance(args[0], _Storage) or args[6] not in tuple(ITEM_SIZES):
            raise self.bad("a damaged tensor")
        return self.view(args[0], args[6], args[1:4], args[7:])

    def view(
        self, storage: _Storage, dtype: str, geometry: tuple[Any, ...], metadata: tuple[Any, ...]
    ) -> StoredArray:
        """A strided view of a storage, checked to lie within it. Offset and strides count elements."""
        offset, size, stride = geometry
        shape = checked_shape(size, f"{self.archive.file.path}: a tensor")
        strides = checked_shape(stride, f"{self.archive.file.path}: the strides of a tensor", product=False)
        if len(strides) != len(shape) or type(offset) is not int or offset < 0:
            raise self.bad("a tensor with damaged strides or offset")
        if any(metadata):
            raise self.bad("a tensor marked as negated or conjugated; resave it with .resolve_neg()")
        total = storage.entry.size // ITEM_SIZES[dtype]
        count = math.prod(shape)
        span = (
            1 + sum((extent - 1) * step for extent, step in zip(shape, strides, strict=True)) if count else 0
        )
        if offset + span > total:
            raise self.bad(f"a tensor of shape {shape} that reaches beyond its storage of {total} elements")
        if count > max(total, MAX_EXPANDED):
            raise self.bad(
                f"a tensor of shape {shape} that repeats a storage of {total} elements; resave it contiguous"
            )
        item = ITEM_SIZES[dtype]

        def load() -> Array:
            flat = self.archive.array(storage.entry, offset * item, span, dtype)
            steps = [step * flat.itemsize for step in strides]
            seen = np.lib.stride_tricks.as_strided(flat, shape, steps) if count else flat.reshape(shape)
            return decode(np.ascontiguousarray(seen).reshape(shape), dtype)

        return StoredArray(shape, dtype, load)

    def bad(self, reason: str) -> WeightsError:
        return WeightsError(
            f"{self.archive.file.path}: {reason}; the file is damaged or was not written by torch.save"
        )


def _only(args: tuple[Any, ...], count: int, kind: type) -> tuple[Any, ...]:
    if len(args) != count or not isinstance(args[0], kind):
        raise ValueError
    return args


def _device(args: tuple[Any, ...]) -> str:
    """("cuda", 0) as "cuda:0"."""
    kind, *index = args
    if type(kind) is not str or len(kind) > 32 or any(type(part) is not int for part in index):
        raise ValueError
    return ":".join(map(str, args))


def _ordered_dict(args: tuple[Any, ...]) -> dict[Any, Any]:
    if args:
        raise ValueError
    return {}


def _latin1(args: tuple[Any, ...]) -> bytes:
    text, encoding = args
    if type(text) is not str or encoding != "latin1":
        raise ValueError
    return text.encode("latin1")


def _set(args: tuple[Any, ...]) -> list[Any]:
    items = _only(args, 1, list)[0]
    if any(type(item) not in (str, int, float, bool, type(None)) for item in items):
        raise ValueError
    return list(items)


def _held(keys: tuple[str, ...]) -> Callable[[tuple[Any, ...]], Held]:
    return lambda args: Held(*keys)


class _NumpyType(Stateful):
    """The dtype of a numpy scalar: one of the plain little-endian numbers."""

    def __init__(self, name: str) -> None:
        self.dtype = np.dtype(name).newbyteorder("<")

    def set_state(self, state: object) -> None:
        if type(state) is not tuple or len(state) < 2 or state[1] not in ("<", "|", "="):
            raise WeightsError("a numpy number in a torch file has a byte order that is not read here")


def _numpy_type(args: tuple[Any, ...]) -> _NumpyType:
    if not args or args[0] not in ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "b1"):
        raise ValueError
    return _NumpyType(args[0])


def _numpy_scalar(args: tuple[Any, ...]) -> int | float | bool:
    kind, raw = args
    if not isinstance(kind, _NumpyType) or type(raw) is not bytes or len(raw) != kind.dtype.itemsize:
        raise ValueError
    value: int | float | bool = np.frombuffer(raw, kind.dtype)[0].item()
    return value

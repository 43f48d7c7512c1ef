"""Weight files made by hand, honest ones and liars: safetensors, pickles, and the zip around them."""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass
from typing import Any


def safetensors(
    header: object, data: bytes = b"", *, length: int | None = None, raw: bytes | None = None
) -> bytes:
    """A safetensors file with that header (or those raw header bytes), whatever it says."""
    text = json.dumps(header).encode() if raw is None else raw
    return struct.pack("<Q", len(text) if length is None else length) + text + data


@dataclass
class Entry:
    """One file of a zip. Every field that is set replaces the honest value in the directory."""

    name: str
    data: bytes
    method: int = 0
    flags: int = 0
    crc: int | None = None
    size: int | None = None
    packed: int | None = None
    offset: int | None = None
    local_name: str | None = None
    extra: bytes = b""
    pad: int = 0
    """Bytes of padding in the local header, as torch.save aligns its data with."""


def archive(
    entries: list[Entry],
    *,
    count: int | None = None,
    here: int | None = None,
    start: int | None = None,
    size: int | None = None,
    disk: int = 0,
    zip64: bool = False,
    comment: bytes = b"",
) -> bytes:
    """A zip archive of stored entries; arguments replace what the end record would say."""
    body, directory = b"", b""
    for entry in entries:
        name, local = entry.name.encode(), (entry.local_name or entry.name).encode()
        crc = zlib.crc32(entry.data) if entry.crc is None else entry.crc
        length = len(entry.data) if entry.size is None else entry.size
        packed = length if entry.packed is None else entry.packed
        offset = len(body) if entry.offset is None else entry.offset
        extra = entry.extra
        if zip64:
            extra += struct.pack("<2H3Q", 1, 24, length, packed, offset)
            length = packed = offset = 0xFFFFFFFF
        fixed = (entry.flags, entry.method, 0, 0, crc, packed, length)
        padding = struct.pack("<2H", 0x4246, entry.pad) + bytes(entry.pad) if entry.pad else b""
        body += struct.pack("<4s5H3I2H", b"PK\3\4", 20, *fixed, len(local), len(padding)) + local + padding
        body += entry.data
        directory += struct.pack(
            "<4s6H3I5H2I", b"PK\1\2", 20, 20, *fixed, len(name), len(extra), 0, 0, 0, 0, offset
        ) + name + extra  # fmt: skip
    count = len(entries) if count is None else count
    here = count if here is None else here
    start = len(body) if start is None else start
    size = len(directory) if size is None else size
    end = b""
    if zip64:
        end += struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, here, count, size, start)
        end += struct.pack("<4sIQI", b"PK\6\7", 0, len(body) + len(directory), 1)
        here = count = 0xFFFF
        size = start = 0xFFFFFFFF
    end += struct.pack("<4s4H2IH", b"PK\5\6", disk, disk, here, count, size, start, len(comment)) + comment
    return body + directory + end


def torch_entries(pickle: bytes, storages: dict[str, bytes] | None = None, root: str = "tiny") -> list[Entry]:
    """The entries that torch.save writes for a pickle and its storages."""
    found = [Entry(f"{root}/data.pkl", pickle), Entry(f"{root}/byteorder", b"little")]
    found += [Entry(f"{root}/data/{key}", data, pad=7) for key, data in (storages or {}).items()]
    return [*found, Entry(f"{root}/version", b"3\n")]


def torch_file(pickle: bytes, storages: dict[str, bytes] | None = None) -> bytes:
    return archive(torch_entries(pickle, storages))


class Code:
    """Pickle opcodes for plain values, with room for others. `code(value)` pushes a value."""

    def __call__(self, value: Any) -> bytes:
        if isinstance(value, Raw):
            return value.code
        if value is None or isinstance(value, bool):
            return {None: b"N", True: b"\x88", False: b"\x89"}[value]
        if isinstance(value, int):
            return (
                b"\x8a\x08" + struct.pack("<q", value)
                if abs(value) >= 1 << 31
                else b"J" + struct.pack("<i", value)
            )
        if isinstance(value, float):
            return b"G" + struct.pack(">d", value)
        if isinstance(value, str):
            return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        if isinstance(value, bytes):
            return b"B" + struct.pack("<I", len(value)) + value
        if isinstance(value, dict):
            return b"}(" + b"".join(self(key) + self(item) for key, item in value.items()) + b"u"
        opened, closed = (b"(", b"t") if isinstance(value, tuple) else (b"](", b"e")
        return opened + b"".join(self(item) for item in value) + closed


@dataclass(frozen=True)
class Raw:
    """Opcodes put in as they are, where a value would stand."""

    code: bytes


code = Code()


def program(value: Any) -> bytes:
    """A whole pickle (protocol 2) of one value."""
    return b"\x80\x02" + code(value) + b"."


def named(name: str) -> Raw:
    """The opcode that asks for a global "module.name"."""
    module, _, attribute = name.rpartition(".")
    return Raw(f"c{module}\n{attribute}\n".encode())


def call(function: Raw, *arguments: Any) -> Raw:
    return Raw(function.code + code(tuple(arguments)) + b"R")


def storage(key: Any = "0", count: Any = 6, kind: str = "torch.FloatStorage", tag: Any = "storage") -> Raw:
    return Raw(code((tag, named(kind), key, "cpu", count)) + b"Q")


def tensor(
    held: Raw | None = None, offset: Any = 0, shape: Any = (2, 3), strides: Any = (3, 1), *more: Any
) -> Raw:
    hooks = call(named("collections.OrderedDict"))
    return call(
        named("torch._utils._rebuild_tensor_v2"),
        held or storage(),
        offset,
        shape,
        strides,
        False,
        hooks,
        *more,
    )

"""Audio files damaged on purpose, each from a seed: what may be wrong with a file that somebody sends."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path

from audiogen_core.stable_bytes import settle

W64_TAIL = bytes.fromhex("f3acd3118cd100c04f8edb8a")
"""Of the names of Wave64's chunks."""

Mutation = Callable[[bytearray, random.Random], bytearray]

LIES = (0, 1, 2, 255, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1)
LONG_LIES = (*LIES, 2**40, 2**62, 2**63 - 12, 2**63 - 1, 2**63, 2**64 - 1)


def truncate(data: bytearray, rng: random.Random) -> bytearray:
    return data[
        : rng.choice([rng.randrange(len(data)), rng.randrange(128), len(data) - rng.randrange(1, 64)])
    ]


def flip_bits(data: bytearray, rng: random.Random) -> bytearray:
    end = rng.choice([128, 1024, len(data)])
    for _ in range(rng.choice([1, 4, 64])):
        data[rng.randrange(min(end, len(data)))] ^= 1 << rng.randrange(8)
    return data


def false_size(data: bytearray, rng: random.Random) -> bytearray:
    """A number of the header of 16, 32 or 64 bits, replaced by an extreme one."""
    order, width = rng.choice("<>"), rng.choice([2, 4, 8])
    value = rng.choice(LONG_LIES) % 2 ** (8 * width)
    at = rng.randrange(min(160, len(data) - 8))
    data[at : at + width] = value.to_bytes(width, "little" if order == "<" else "big")
    return data


def named_field(data: bytearray, rng: random.Random) -> bytearray:
    """Channels, rate or number of samples where this format has them: 0, 2**31, or anything."""
    fields = {
        b"fmt ": [(8, "<H"), (10, "<H"), (12, "<I"), (20, "<H"), (22, "<H")],
        b"data": [(4, "<I")],
        b"COMM": [(8, ">H"), (10, ">I"), (14, ">H"), (16, ">H")],
        b"SSND": [(4, ">I"), (8, ">I")],
        b"fLaC": [(8, ">H"), (10, ">H"), (18, ">I"), (22, ">I")],
        b"\x01vorbis": [(11, "<B"), (12, "<I"), (28, "<B")],
        b"OpusHead": [(9, "<B"), (10, "<H"), (12, "<I"), (18, "<B")],
        b"LIST": [(4, "<I")],
        b"ID3": [(6, ">I")],
        b"ds64": [(8, "<Q"), (16, "<Q"), (24, "<Q")],
        b"data" + W64_TAIL: [(16, "<Q")],
        b"riff": [(16, "<Q")],
        b"desc": [(4, ">Q"), (12, ">Q"), (28, ">I"), (32, ">I"), (36, ">I"), (40, ">I")],
        b"caff": [(8 + 12 + 32 + 4, ">Q")],
        b".snd": [(4, ">I"), (8, ">I"), (12, ">I"), (16, ">I"), (20, ">I")],
    }
    there = [
        (data.find(name), field) for name, choices in fields.items() for field in choices if name in data
    ]
    if not there:  # an MP3 frame
        data[rng.randrange(4)] = rng.randrange(256)
        return data
    start, (offset, form) = rng.choice(there)
    size = struct.calcsize(form)
    value = rng.choice([*LONG_LIES, rng.randrange(2**32)]) % 2 ** (8 * size)
    data[start + offset : start + offset + size] = struct.pack(form, value)
    return data


def not_finite(data: bytearray, rng: random.Random) -> bytearray:
    value = struct.pack("<f", rng.choice([float("nan"), float("inf"), -float("inf")]))
    for _ in range(rng.choice([1, 100])):
        at = rng.randrange(40, len(data) - 8) // 4 * 4
        data[at : at + 4] = value
    return data


def cut_out(data: bytearray, rng: random.Random) -> bytearray:
    start = rng.randrange(len(data))
    del data[start : start + rng.randrange(1, 2000)]
    return data


def repeat(data: bytearray, rng: random.Random) -> bytearray:
    start = rng.randrange(len(data))
    part = data[start : start + rng.randrange(1, 2000)]
    return data[:start] + part * rng.choice([2, 50]) + data[start:]


def garbage(data: bytearray, rng: random.Random) -> bytearray:
    start, count = rng.randrange(len(data)), rng.randrange(1, 4000)
    data[start : start + count] = rng.randbytes(count)
    return data


def joined(data: bytearray, rng: random.Random) -> bytearray:
    """The file in a row with itself, often without its first or last bytes."""
    return (
        data
        + data[
            rng.choice([0, 0, rng.randrange(len(data))]) : rng.choice([len(data), rng.randrange(len(data))])
        ]
    )


def uncounted(data: bytearray, rng: random.Random) -> bytearray:
    """The names of what counts or sizes the sound, replaced, or with another number behind them."""
    names = [name for name in (b"Xing", b"Info", b"data", b"ds64", b"RIFF", b"stsz", b"trun") if name in data]
    if names:
        at = data.find(rng.choice(names))
        if rng.random() < 0.5:
            data[at : at + 4] = rng.choice([bytes(4), b"VBRI", b"Xing", b"RF64"])
        else:
            data[at + 8 : at + 12] = struct.pack(rng.choice("<>") + "I", rng.choice(LIES))
    return data


def zeros(data: bytearray, rng: random.Random) -> bytearray:
    start = rng.choice([0, rng.randrange(len(data))])
    data[start:start] = bytes(rng.choice([1, 500, 70_000]))
    return data


def many_heads(data: bytearray, rng: random.Random) -> bytearray:
    """What a file begins with, very often."""
    return data[: rng.choice([4, 12, 40, 44, 54, 128])] * rng.randrange(2, 9000) + data


def other_head(data: bytearray, rng: random.Random) -> bytearray:
    heads = [
        b"RIFF\xff\xff\xff\xffWAVE",
        b"FORM\0\0\0\0AIFC",
        b"fLaC\0\0\0\x22",
        b"OggS\0\2",
        b"ID3\4\0\x10\0\0\x7f\x7f",
    ]
    head = rng.choice([*heads, b"RF64", b"caff", b".snd", b"\xff\xfb\x90\x64", b"RIFX"])
    data[: len(head)] = head
    return data


MUTATIONS: tuple[Mutation, ...] = (
    truncate,
    flip_bits,
    false_size,
    named_field,
    not_finite,
    cut_out,
    repeat,
    garbage,
    other_head,
    joined,
    uncounted,
    zeros,
    many_heads,
)


def damage(original: bytes, path: Path, seed: int) -> str:
    """Write a damaged copy to `path`; returns what was done. Half of the Ogg files get right checksums."""
    rng = random.Random(seed)
    data, done = bytearray(original), []
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        mutation = rng.choice(MUTATIONS)
        if len(data) > 64:
            data = mutation(data, rng)
            done.append(mutation.__name__)
    path.write_bytes(data)
    if data[:4] == b"OggS" and rng.random() < 0.5:
        settle(path, "OGG")
        done.append("right checksums")
    return ", ".join(done)

"""Pickles that ask for allowed globals only, and for all the memory and time there is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from support.forge import Raw, archive, call, code, named, program, storage, tensor, torch_entries
from support.safetensors_lies import Rng, pick


def put(index: int) -> bytes:
    return b"r" + index.to_bytes(4, "little")


def get(index: int) -> bytes:
    return b"h" + bytes([index])


def many(rng: Rng, least: int, most: int) -> int:
    """A number, every order of magnitude as likely as another."""
    return int(least * (most / least) ** rng.random())


def text(rng: Rng, size: int) -> bytes:
    """The opcodes of a text of so many bytes, now and then with a character that makes it wide."""
    wide = pick(rng, ["", "", "\xe9", "\u20ac", "\U0001f600"])
    body = ("a" * max(0, size - len(wide.encode())) + wide).encode()
    return b"X" + len(body).to_bytes(4, "little") + body


def again(rng: Rng, made: bytes, count: int) -> bytes:
    """A tuple or list in which something is done again and again."""
    return b"(" + made * count + b"t" if rng.random() < 0.5 else b"](" + made * count + b"e"


def doubled_texts(rng: Rng) -> bytes:
    double = get(0) + get(1) + get(1) + b"\x86R" + put(1) + b"0"
    start = named("torch.device").code + put(0) + text(rng, many(rng, 1, 100)) + put(1) + b"0"
    return start + double * many(rng, 3, 60) + get(1)


def long_devices(rng: Rng) -> bytes:
    start = named("torch.device").code + put(0) + b"0" + text(rng, many(rng, 1, 3_000_000)) + put(1) + b"0"
    return start + again(rng, get(0) + get(1) + b"K\0\x86R", many(rng, 10, 60_000))


def copied_sets(rng: Rng) -> bytes:
    item = pick(rng, [b"K\0", b"N", b"\x88", b"G" + b"\0" * 8, b"J\x01\x02\x03\x04"])
    start = named("builtins.set").code + put(0) + b"0](" + item * many(rng, 1, 300_000) + b"e" + put(1) + b"0"
    return start + again(rng, get(0) + get(1) + b"\x85R", many(rng, 10, 80_000))


def copied_bytes(rng: Rng) -> bytes:
    start = named("_codecs.encode").code + put(0) + b"0" + code("latin1") + put(2) + b"0"
    start += b"X" + (size := many(rng, 1, 4_000_000)).to_bytes(4, "little") + b"a" * size + put(1) + b"0"
    return start + again(rng, get(0) + get(1) + get(2) + b"\x86R", many(rng, 10, 60_000))


def long_names(rng: Rng) -> bytes:
    """One key before thousands of tensors, or keys upon keys."""
    inner = tensor().code + put(0) + b"0(" + get(0) * many(rng, 100, 300_000) + b"t"
    for _ in range(int(rng.integers(0, 4))):
        inner = (
            b"](" + inner + b"e" if rng.random() < 0.3 else b"}" + code("a" * many(rng, 1, 9)) + inner + b"s"
        )
    return b"}" + text(rng, many(rng, 1, 3_000_000)) + inner + b"s"


def names_of_nothing(rng: Rng) -> bytes:
    empty = pick(rng, [b"K\0", b")", b"]", b"}", b"N"])
    return b"}" + text(rng, many(rng, 1, 3_000_000)) + again(rng, empty, many(rng, 100, 300_000)) + b"s"


def laughter(rng: Rng) -> bytes:
    """Ten of ten of ten of ..."""
    start = pick(rng, [text(rng, many(rng, 1, 1_000_000)), tensor().code, code({"a": 1}), b"K\0", b")"])
    wide, body = int(rng.integers(2, 60)), start + put(0) + b"0"
    for level in range(int(rng.integers(1, 60))):
        below = get(level % 250) * wide
        body += pick(rng, [b"(" + below + b"t", b"](" + below + b"e"]) + put((level + 1) % 250) + b"0"
    return body + get((level + 1) % 250)


def empties(rng: Rng) -> bytes:
    one = pick(
        rng,
        [
            b"]", b"}", b"(", b")\x85", b"N\x85", b"]]\x86", b"N\x94", b"K\x01\x94", b"(t\x85\x94", b"}K\0Ns",
            b"}\x88Ns", b"](NNe", b"\x8a\x08" + b"\x7f" * 8, b"G" + b"\1" * 8, b"C\0", b"C\x01a",
            b"\x8c\x02\xc3\xa9", b"J\1\2\3\4",
            b"}\x8c\1aN\x8c\1bN\x8c\1cNu", b"}(\x8c\1aN\x8c\1bNu",
        ],
    )  # fmt: skip
    return (
        b"(" + one * many(rng, 1000, 400_000 // max(1, len(one) // 2)) + pick(rng, [b"t", b"t", b"", b"1N"])
    )


def memos(rng: Rng) -> bytes:
    count = many(rng, 1000, 390_000)
    step = int(pick(rng, [1, 7, 1 << 12, 1 << 20]))
    return b"N" + b"".join(b"r" + (index * step % (1 << 32)).to_bytes(4, "little") for index in range(count))


def calls(rng: Rng) -> bytes:
    """The same small call a hundred thousand times."""
    name, arguments = pick(
        rng,
        [
            ("torch.Size", ((1,) * int(rng.integers(0, 33)),)),
            ("torch.device", ("cuda", 0)),
            ("collections.OrderedDict", ()),
            ("numpy.dtype", ("f8", False, True)),
            ("builtins.set", ([1, 2, 3],)),
            ("_codecs.encode", ("abc", "latin1")),
            ("numpy.core.multiarray.scalar", (call(named("numpy.dtype"), "f8", False, True), b"12345678")),
            ("torch._utils._rebuild_parameter", (tensor(), True, {})),
            ("torch._utils._rebuild_tensor_v2", (storage(), 0, (2, 3), (3, 1), False, {})),
            ("torch._utils._rebuild_tensor_v2", (storage(), 0, (1,) * 32, (1,) * 32, False, {})),
            ("torch._utils._rebuild_tensor_v2", (storage(), 0, (65_536,), (0,), False, {})),
            (
                "torch._utils._rebuild_tensor_v3",
                (
                    storage(kind="torch.storage.UntypedStorage", count=24),
                    0,
                    (2, 3),
                    (3, 1),
                    False,
                    {},
                    "float32",
                ),
            ),
        ],
    )
    start = named(name).code + put(0) + b"0" + code(arguments) + put(1) + b"0"
    return start + again(rng, get(0) + get(1) + b"R", many(rng, 1000, 132_000))


def storages(rng: Rng) -> bytes:
    key = pick(rng, ["0", "0", "a" * many(rng, 1, 3_000_000)])
    start = code(("storage", named("torch.FloatStorage"), key, "cpu", 6)) + put(0) + b"0"
    return start + again(rng, get(0) + b"Q", many(rng, 1000, 190_000))


def colliding_keys(rng: Rng) -> bytes:
    """Numbers that hash alike, or walk the same way through the table."""
    kind = pick(rng, ["modulus", "shifted", "chain"])
    count = many(rng, 1000, 190_000)
    if kind == "modulus":
        keys = [index * ((1 << 61) - 1) % (1 << 63) for index in range(count)]
    elif kind == "shifted":
        keys = [(index << int(rng.integers(20, 44))) & ((1 << 63) - 1) for index in range(count)]
    else:
        keys, at = [], 1
        for _ in range(count):
            at = (5 * at + 1) % (1 << 18)
            keys.append(at)
        keys = keys[: count // 2] + [keys[0] + (index << 45) for index in range(count // 2)]
    return b"}(" + b"".join(b"\x8a\x08" + key.to_bytes(8, "little") + b"N" for key in keys) + b"u"


def states(rng: Rng) -> bytes:
    """BUILD with a large state, again and again."""
    start = again(rng, b"K\0", many(rng, 1, 100_000)) + put(0) + b"0"
    target = pick(rng, [b"}", call(named("numpy.dtype"), "f8", False, True).code, b"]"])
    return start + target + (get(0) + b"b") * many(rng, 10, 130_000)


def asked_for(rng: Rng) -> bytes:
    """Globals found again and again, some by names of megabytes."""
    name = pick(rng, ["torch.float32", "torch.Size", "a." + "b" * many(rng, 1, 3_000_000)])
    module, _, attribute = name.rpartition(".")
    start = code(module) + put(0) + b"0" + code(attribute) + put(1) + b"0"
    return start + again(rng, get(0) + get(1) + b"\x93", many(rng, 100, 130_000))


def huge_texts(rng: Rng) -> bytes:
    start = text(rng, many(rng, 1000, 7_000_000)) + put(0)
    return start + b"0" + again(rng, get(0), many(rng, 1, 380_000))


def views(rng: Rng) -> bytes:
    """Tensors that are all the same numbers of one storage."""
    start = tensor(storage(count=250_000), 0, (250_000,), (1,)).code + put(0) + b"0"
    return start + again(rng, get(0), many(rng, 1, 300_000))


def noise(rng: Rng) -> bytes:
    """Opcodes at random that fit the stack more often than not."""
    body = named("builtins.set").code + put(0) + b"0" + text(rng, many(rng, 1, 1_000_000)) + put(1) + b"0"
    body += code([0] * 1000) + put(2) + b"0" + tensor().code + put(3) + b"0" + b"}" + put(4)
    pieces = [
        get(1), get(2), get(3), get(4), b"N", b"]", b"}", b")", b"\x85", b"\x86", b"\x94", b"N0",
        get(0) + get(2) + b"\x85R", get(2) + get(1) + b"a0", get(4) + get(1) + get(3) + b"s0",
        get(2) + b"(" + get(1) * 9 + b"e0", get(4) + b"(" + code("k") + get(2) + b"u0",
        get(4) + get(2) + b"b0",
    ]  # fmt: skip
    drawn = rng.integers(0, len(pieces), many(rng, 100, 60_000))
    return b"(" + body + b"".join(pieces[index] for index in drawn) + b"t"


GREEDY: dict[str, Callable[[Rng], bytes]] = {
    made.__name__.replace("_", " "): made
    for made in (
        doubled_texts, long_devices, copied_sets, copied_bytes, long_names, names_of_nothing, laughter,
        empties, memos, calls, storages, colliding_keys, states, asked_for, huge_texts, views, noise,
    )
}  # fmt: skip


def greedy(rng: Rng, kind: str) -> bytes:
    """A torch file of that kind: the greedy value stands in a dictionary beside an honest tensor."""
    value: Any = {"x": Raw(GREEDY[kind](rng))}
    if kind != "views" and rng.random() < 0.5:
        value = {"w": tensor(), **value}
    floats = 250_000 if kind == "views" else 6
    return archive(torch_entries(program(value), {"0": bytes(4 * floats)}))

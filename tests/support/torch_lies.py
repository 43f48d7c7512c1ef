"""Torch files that lie: forbidden code in many spellings and places, false tensors, pickles, archives."""

from __future__ import annotations

from typing import Any

from support.forge import Entry, Raw, archive, call, code, named, program, storage, tensor, torch_entries
from support.safetensors_lies import Lie, Rng, pick

CANARY = "canary"


def payload(rng: Rng, canary: str) -> Raw:
    """Code that would leave a file behind, in one of many spellings."""
    shell = f"touch {canary}"
    python = f"open({canary!r}, 'w').close()"
    module, name, argument = pick(
        rng,
        [
            ("os", "system", shell),
            ("posix", "system", shell),
            ("subprocess", "getoutput", shell),
            ("subprocess", "check_call", ["touch", canary]),
            ("builtins", "eval", python),
            ("builtins", "exec", python),
            ("__builtin__", "eval", python),
            ("builtins", "open", canary),
            ("builtins", "compile", python),
            ("builtins", "__import__", "os"),
            ("builtins", "getattr", "os"),
            ("operator", "attrgetter", "system"),
            ("operator", "methodcaller", "system"),
            ("functools", "partial", shell),
            ("importlib", "import_module", "os"),
            ("torch", "load", canary),
            ("torch.hub", "load", canary),
            ("torch.storage", "_load_from_bytes", b"x"),
            ("torch._utils", "_import_dotted_name", "os.system"),
            ("torch.jit", "load", canary),
            ("numpy", "load", canary),
            ("pathlib", "Path.touch", canary),
            ("collections", "OrderedDict.__init__", 1),
            ("codecs", "encode", "x"),
            ("_codecs", "lookup", "x"),
            ("audiogen_core.files", "atomic_path", canary),
            ("sys", "modules", 1),
            ("torch.os", "system", shell),
            ("numpy", "os.system", shell),
            ("pickle", "loads", b"x"),
            ("timeit", "timeit", python),
        ],
    )
    asked = pick(
        rng,
        [
            named(f"{module}.{name}").code,
            code(module) + code(name) + b"\x93",
            code(module) + b"\x94" + code(name) + b"\x94\x93\x94",
        ],
    )
    closed = pick(
        rng, [code((argument,)) + b"R", code((argument,)) + b"\x81", code((argument,)) + b"}\x92", b""]
    )
    return pick(
        rng,
        [
            Raw(asked + closed),
            Raw(b"(i" + f"{module}\n{name}\n".encode()),
            Raw(b"(" + asked + code(argument) + b"o"),
            Raw(asked + code((argument,)) + b"R" + code({"a": 1}) + b"b"),
        ],
    )


def hidden(rng: Rng, thing: Raw) -> Any:
    """A payload in one of the places where a reader might trip."""
    places: list[Any] = [
        thing,
        [thing],
        {"a": thing},
        {"a": {"b": [(1, thing)]}},
        tensor(thing),
        tensor(storage(key=thing)),
        tensor(storage(tag=thing)),
        tensor(storage(), thing),
        tensor(storage(), 0, thing),
        tensor(storage(), 0, (2, 3), (3, 1), thing),
        call(thing),
        call(named("collections.OrderedDict"), thing),
        call(named("torch._utils._rebuild_parameter"), thing, True, {}),
        Raw(b"}" + thing.code + b"Ns"),
        Raw(thing.code + b"Q"),
        Raw(thing.code + b"0}"),
        Raw(b"}" + thing.code + b"b"),
        call(named("torch.Size"), thing),
        call(named("_codecs.encode"), thing, "latin1"),
        call(named("numpy._core.multiarray.scalar"), thing, b"12345678"),
    ]
    return pick(rng, places)


def forbidden(rng: Rng) -> bytes:
    return archive(torch_entries(program(hidden(rng, payload(rng, CANARY))), {"0": rng.bytes(24)}))


def lying_tensor(rng: Rng) -> bytes:
    odd = pick(rng, [-1, 1 << 31, 1 << 62, True, 1.5, "1", None, [1], (1,)])
    value = pick(
        rng,
        [
            tensor(storage(count=pick(rng, [0, 5, 7, -6, 1 << 40, True, "6", None]))),
            tensor(
                storage(
                    kind=pick(
                        rng, ["torch.DoubleStorage", "torch.HalfStorage", "torch.QInt8Storage", "torch.Size"]
                    )
                )
            ),
            tensor(storage(key=pick(rng, ["1", "", "../0", "0\0", "/0", 0, None, b"0", "data.pkl"]))),
            tensor(storage(), pick(rng, [1, 6, odd])),
            tensor(storage(), 0, pick(rng, [(7,), (2, 4), (odd,), odd, (3, 3), "23"]), (3, 1)),
            tensor(storage(), 0, (2, 3), pick(rng, [(4, 1), (3, 2), (odd, 1), odd, (1,), ()])),
            tensor(storage(), 0, (1 << 30, 1 << 30), (0, 0)),
            tensor(storage(), 0, (1 << 17,), (0,)),
            tensor(storage(), 0, (2, 3), (3, 1), {"conj": True}),
            tensor(storage(), 0, (2, 3), (3, 1), {}, 1),
            call(
                named("torch._utils._rebuild_tensor_v3"), storage(), 0, (2, 3), (3, 1), False, {}, "float64"
            ),
            call(named("torch._utils._rebuild_tensor_v3"), storage(), 0, (2, 3), (3, 1), False, {}, odd),
            call(named("torch._utils._rebuild_tensor_v2"), *[odd] * int(rng.integers(0, 9))),
            call(named("torch._utils._rebuild_parameter"), *[odd] * int(rng.integers(0, 5))),
        ],
    )
    return archive(torch_entries(program({"a": value}), {"0": rng.bytes(24)}))


def lying_pickle(rng: Rng) -> bytes:
    many = int(rng.integers(100, 20_000))
    raw = pick(
        rng,
        [
            b"]" * many + b"a" * (many - 1),
            b")" + b"\x85" * many,
            b"}" + (b"q\0" + code("a") + b"h\0s"),
            b"]q\0h\0a",
            b"]" + b"q\0h\0h\0\x86" * int(rng.integers(30, 200)),
            b"0" * many,
            b"(" * many,
            b"t" * 5,
            b"N" * many,
            b"j" + rng.bytes(4),
            b"h" + rng.bytes(1),
            b"r\xff\xff\xff\xff",
            b"\x8b\xff\xff\xff\x7f",
            b"\x8a\xff" + b"1" * 255,
            b"X\xff\xff\xff\xff",
            b"\x8d" + b"\xff" * 8,
            b"\x8e" + b"\xff" * 8,
            b"B\xff\xff\xff\xff",
            b"\x96" + b"\xff" * 8,
            b"}" + code((1,)) + b"Ns",
            b"}" + code(0.5) + b"Ns",
            b"](" + code(1) + b"u",
            b"}(" + code(1) + b"u",
            b"\x82\1",
            b"\x83\1\0",
            b"\x84\1\0\0\0",
            b"P0\n",
            b"I1\n",
            b"L1L\n",
            b"S'a'\n",
            b"F1\n",
            b"V1\n",
            b"d",
            b"l",
            b"2",
            b"\x8f",
            b"\x91",
            b"\x97",
            b"\x98",
            b"(ios\nsystem\n",
            b"cos\n",
            b"c" + b"a" * many,
            b"N" + b"R",
            b"NNR",
            b"NNb",
            code((1,)) + b"Q",
            code(("storage",) * 5) + b"Q",
            rng.bytes(int(rng.integers(1, 60))) + b"\xfe",
            b"(" + b"N0" * 250_000 + b"t" if rng.random() < 0.05 else b"\x95",
        ],
    )
    pickle = b"\x80\x02" + raw + pick(rng, [b".", b"", b"..", b"N.", b"a.", b"u."])
    if rng.random() < 0.2:
        honest = program({"a": tensor()})
        pickle = honest[: int(rng.integers(len(honest)))]
    return archive(torch_entries(pickle, {"0": rng.bytes(24)}))


def lying_archive(rng: Rng) -> bytes:
    entries = torch_entries(program({"a": tensor()}), {"0": rng.bytes(24)})
    far = int(pick(rng, [1, 30, 1 << 16, (1 << 32) - 2]))
    lie: dict[str, Any] = pick(
        rng,
        [
            {"method": int(pick(rng, [8, 12, 14, 99]))},
            {"flags": int(pick(rng, [1, 0x41, 0x2000]))},
            {"size": far},
            {"packed": far},
            {"offset": far},
            {"crc": far},
            {"local_name": "tiny/data/1"},
            {"size": far, "packed": far},
            {"size": 0xFFFFFFFF, "extra": b"\1\0\x10\0" + rng.bytes(16)},
            {"offset": 0xFFFFFFFF, "extra": b"\1\0\x08\0" + rng.bytes(8)},
            {"size": 0xFFFFFFFF, "extra": rng.bytes(5)},
            {"name": "tiny/data.pkl"},
            {"name": "tiny/data/2"},
        ],
    )
    if rng.random() < 0.5:
        for name, value in lie.items():
            setattr(entries[2], name, value)
        return archive(entries, zip64=rng.random() < 0.3 and not {"offset", "size", "extra"} & set(lie))
    whole = archive(entries)
    return pick(
        rng,
        [
            lambda: whole[: int(rng.integers(len(whole)))],
            lambda: whole + rng.bytes(int(rng.integers(1, 70_000))),
            lambda: archive(entries, count=int(pick(rng, [0, 1, 3, 9, 0xFFFF]))),
            lambda: archive(entries, here=1),
            lambda: archive(entries, start=int(rng.integers(0, 50))),
            lambda: archive(entries, size=int(rng.integers(0, 50))),
            lambda: archive(entries, disk=1),
            lambda: archive(entries, count=1 << 40, zip64=True),
            lambda: archive(entries, size=1 << 60, zip64=True),
            lambda: archive(entries, comment=rng.bytes(30)),
            lambda: archive([*entries, entries[2]]),
            lambda: archive(entries + torch_entries(b"", root="other")),
            lambda: archive(entries[1:]),
            lambda: archive([*entries, Entry("tiny/constants.pkl", b"")]),
            lambda: rng.bytes(int(rng.integers(1, 3000))),
            lambda: b"PK\3\4" + rng.bytes(int(rng.integers(1, 3000))),
        ],
    )()


TORCH: dict[str, Lie] = {
    "forbidden": forbidden,
    "tensor": lying_tensor,
    "pickle": lying_pickle,
    "archive": lying_archive,
}

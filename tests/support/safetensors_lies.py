"""Safetensors files that lie: an honest file is drawn at random, then one claim in it is made false."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from support.forge import safetensors

Rng = np.random.Generator
Lie = Callable[[Rng], bytes]

DTYPES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


def pick(rng: Rng, options: Any) -> Any:
    options = list(options)
    return options[int(rng.integers(len(options)))]


def honest_header(rng: Rng) -> tuple[dict[str, Any], bytes]:
    header: dict[str, Any] = {}
    end = 0
    for index in range(int(rng.integers(2, 6))):
        dtype = pick(rng, DTYPES)
        shape = [int(size) for size in rng.integers(1, 5, int(rng.integers(1, 4)))]
        size = DTYPES[dtype] * int(np.prod(shape))
        header[f"layers.{index}.{pick(rng, ['weight', 'bias'])}"] = {
            "dtype": dtype,
            "shape": shape,
            "data_offsets": [end, end + size],
        }
        end += size
    return header, rng.bytes(end)


def changed_entry(change: Callable[[Rng, dict[str, Any]], None]) -> Lie:
    def lie(rng: Rng) -> bytes:
        header, data = honest_header(rng)
        change(rng, header[pick(rng, header)])
        return safetensors(header, data)

    return lie


def moved(rng: Rng, entry: dict[str, Any], begin: int, end: int) -> None:
    entry["data_offsets"][0] += begin
    entry["data_offsets"][1] += end


def other_sizes(dtype: str) -> list[str]:
    return [key for key in DTYPES if DTYPES[key] != DTYPES[dtype]]


def cut_or_longer(rng: Rng) -> bytes:
    whole = safetensors(*honest_header(rng))
    return (
        whole[: int(rng.integers(len(whole)))]
        if rng.random() < 0.7
        else whole + rng.bytes(int(rng.integers(1, 99)))
    )


def repeated_name(rng: Rng) -> bytes:
    header, data = honest_header(rng)
    name = pick(rng, header)
    text = json.dumps(header)[:-1] + f", {json.dumps(name)}: {json.dumps(header[name])}" + "}"
    return safetensors(None, data, raw=text.encode())


def many_tensors(rng: Rng) -> bytes:
    count = int(pick(rng, [20_001, 30_000]))
    return safetensors(
        None,
        raw=b"{"
        + b",".join(b'"%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}' % i for i in range(count))
        + b"}",
    )


def odd_json(rng: Rng) -> bytes:
    depth = int(rng.integers(2000, 100_000))
    return safetensors(
        None,
        bytes(8),
        raw=pick(
            rng,
            [
                b"[" * depth,
                b'{"a":' * depth,
                b"",
                b"null",
                b"[]",
                b'"a"',
                b"9" * 5000,
                b'{"a": NaN}',
                b'{"a": 1e999}',
                b'{"a": {"dtype": "F32", "shape": [1e0], "data_offsets": [0, 8]}}',
                b"\xff\xfe{}",
                b"{'a': 1}",
                rng.bytes(50),
                b'{"a": {"dtype": "F32", "shape": [%s], "data_offsets": [0, 8]}}' % (b"9" * 4000),
            ],
        ),
    )


def odd_metadata(rng: Rng) -> bytes:
    header, data = honest_header(rng)
    return safetensors(
        {"__metadata__": pick(rng, [1, [], {"a": 1}, {"a": None}, "x", {"a": {}}])} | header, data
    )


SAFETENSORS: dict[str, Lie] = {
    "begins early": changed_entry(lambda rng, entry: moved(rng, entry, -int(rng.integers(1, 9)), 0)),
    "ends late": changed_entry(lambda rng, entry: moved(rng, entry, 0, int(rng.integers(1, 1 << 40)))),
    "is moved": changed_entry(
        lambda rng, entry: moved(rng, entry, *[int(pick(rng, [-8, -1, 1, 2, 8, 1 << 62]))] * 2)
    ),
    "another dtype": changed_entry(
        lambda rng, entry: entry.update(dtype=pick(rng, other_sizes(entry["dtype"])))
    ),
    "unknown dtype": changed_entry(
        lambda rng, entry: entry.update(
            dtype=pick(rng, ["F8_E5M2", "C64", "f32", "", "F128", None, 7, [], {}, "F32\0"])
        )
    ),
    "another shape": changed_entry(
        lambda rng, entry: entry["shape"].append(int(pick(rng, [0, 2, 3, -1, 1 << 50])))
    ),
    "odd shape": changed_entry(
        lambda rng, entry: entry.update(
            shape=pick(rng, ["", {}, None, 3, [True], [1.0], [[1]], ["1"], [1] * 70 + [9]])
        )
    ),
    "odd offsets": changed_entry(
        lambda rng, entry: entry.update(
            data_offsets=pick(rng, [[], [0], [0, 1, 2], "01", [0.0, 4.0], [None, 4], {}, [-4, 0]])
        )
    ),
    "lacks a field": changed_entry(
        lambda rng, entry: entry.pop(pick(rng, ["dtype", "shape", "data_offsets"]))
    ),
    "has a field more": changed_entry(
        lambda rng, entry: entry.update({pick(rng, ["strides", "byteorder", ""]): 1})
    ),
    "cut or longer": cut_or_longer,
    "header length": lambda rng: safetensors(
        *honest_header(rng), length=int(pick(rng, [0, 1, 7, 1 << 20, 1 << 40, 2**64 - 1]))
    ),
    "repeated name": repeated_name,
    "odd metadata": odd_metadata,
    "odd json": odd_json,
}

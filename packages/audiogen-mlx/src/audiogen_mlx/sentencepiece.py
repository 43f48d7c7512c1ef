"""A SentencePiece model (BPE) as a tokenizer of the tokenizers library, which reads none itself.

Format: sentencepiece_model.proto of google/sentencepiece, in protobuf's wire format.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

from audiogen_core.errors import ModelError

if TYPE_CHECKING:
    import tokenizers

MAX_BYTES = 32 << 20  # Gemma's has 4 MB
LONGEST = 128
"""Characters of a piece; all ways to cut one in two are looked up."""

SPACE = "\u2581"  # stands for a space

_NORMAL, _UNKNOWN, _USER = 1, 2, 4  # kinds of pieces; others are never made of a text
_BPE = 2
_FIXED = {1: 8, 5: 4}  # wire types of so many bytes


def read(data: bytes, source: str) -> tokenizers.Tokenizer:
    """A tokenizer that makes of a text what SentencePiece makes of it. Raises ModelError.

    Only models that take a text as it is are read, as Gemma's does: no other normalisation, no space put
    before it.
    """
    import tokenizers
    from tokenizers import AddedToken, models, normalizers

    if len(data) > MAX_BYTES:
        raise ModelError(f"{source}: a SentencePiece model of {len(data)} bytes, more than {MAX_BYTES}")
    pieces: list[tuple[str, float, int]] = []
    trainer: dict[int, int | bytes] = {}
    normalizer: dict[int, int | bytes] = {}
    try:
        for number, value in _fields(data):
            if number == 1:
                pieces.append(_piece(_bytes(value)))
            elif number == 2:
                trainer = dict(_fields(_bytes(value)))
            elif number == 3:
                normalizer = dict(_fields(_bytes(value)))
    except (ValueError, struct.error) as error:
        raise ModelError(f"{source}: a damaged SentencePiece model: {error}") from error
    if trainer.get(3, 1) != _BPE:
        raise ModelError(f"{source}: a SentencePiece model of another kind than BPE")
    # Rules of normalisation; a space put before; spaces that are taken out: the last two are the default.
    if normalizer.get(2) or normalizer.get(3, 1) or normalizer.get(4, 1):
        raise ModelError(f"{source}: a SentencePiece model that changes texts before it cuts them")
    unknown = [name for name, _, kind in pieces if kind == _UNKNOWN]
    if len(unknown) != 1 or len({name for name, _, _ in pieces}) != len(pieces):
        raise ModelError(f"{source}: a damaged SentencePiece model: pieces twice, or not one for the unknown")
    model = models.BPE(
        {name: index for index, (name, _, _) in enumerate(pieces)},
        _merges(pieces),
        unk_token=unknown[0],
        fuse_unk=True,
        byte_fallback=bool(trainer.get(35, 0)),
    )
    tokens = tokenizers.Tokenizer(model)
    tokens.normalizer = normalizers.Replace(" ", SPACE)
    tokens.add_tokens([AddedToken(name, normalized=True) for name, _, kind in pieces if kind == _USER])
    return tokens


def _merges(pieces: list[tuple[str, float, int]]) -> list[tuple[str, str]]:
    """Pairs of pieces that are one together, the best first."""
    known = {name: index for index, (name, _, kind) in enumerate(pieces) if kind == _NORMAL}
    ranked = []
    for name in known:
        score = pieces[known[name]][1]
        for cut in range(1, len(name)):
            left, right = name[:cut], name[cut:]
            if left in known and right in known:
                ranked.append((-score, known[left], known[right]))
    ranked.sort()
    return [(pieces[left][0], pieces[right][0]) for _, left, right in ranked]


def _piece(data: bytes) -> tuple[str, float, int]:
    found = dict(_fields(data))
    score, kind = found.get(2, b"\0\0\0\0"), found.get(3, _NORMAL)
    name = _bytes(found.get(1, b"")).decode("utf-8")
    if not name or len(name) > LONGEST or not isinstance(kind, int):
        raise ValueError("a piece without a name, or with a very long one")
    return name, struct.unpack("<f", _bytes(score))[0], kind


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number where bytes should be")
    return value


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Numbers of fields and their values: whole numbers, or bytes. Raises ValueError."""
    at = 0
    while at < len(data):
        key, at = _number(data, at)
        if key & 7 == 0:
            value, at = _number(data, at)
            yield key >> 3, value
            continue
        if key & 7 == 2:
            size, at = _number(data, at)
        else:
            size = _FIXED.get(key & 7, len(data))
        if size > len(data) - at:
            raise ValueError("it ends early")
        yield key >> 3, data[at : at + size]
        at += size


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at + shift // 7 >= len(data):
            raise ValueError("it ends early")
        byte = data[at + shift // 7]
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at + shift // 7 + 1
    raise ValueError("a number of more than ten bytes")

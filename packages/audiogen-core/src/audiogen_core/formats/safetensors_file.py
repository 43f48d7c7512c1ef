"""The safetensors format: read with every claim of the header checked before any data is touched, and
written tensor by tensor.

Layout (huggingface/safetensors, "Format"): 8 bytes little-endian header length, a JSON header of
name -> {dtype, shape, data_offsets [begin, end)}, then the data, without gaps or overlaps.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

from audiogen_core.errors import WeightsError
from audiogen_core.formats.stored import (
    ITEM_SIZES,
    Array,
    FileBytes,
    StoredArray,
    checked_shape,
    decode,
    encode,
    shorten,
)

MAX_HEADER = 4 << 20
"""Bytes of header accepted; a tensor needs about a hundred."""

MAX_TENSORS = 20_000

MAX_MARKS = 30 * MAX_TENSORS
"""Commas, colons and brackets in a header. An empty list takes three bytes of it and sixty of memory."""

DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8",
    "BOOL": "bool",
}  # fmt: skip


def read_safetensors(path: str | Path) -> tuple[dict[str, StoredArray], dict[str, str]]:
    """The tensors of one file by name, unread, and the metadata its header carries.

    Raises WeightsError when the header is too long, is not the JSON it should be, repeats a name,
    names an unknown dtype, or when offsets overlap, leave gaps or do not end with the file.
    """
    file = FileBytes(path)
    header, start = _header(file)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or any(type(value) is not str for value in metadata.values()):
        raise WeightsError(f"{file.path}: the safetensors metadata must map texts to texts")
    tensors, spans = {}, []
    for name, entry in header.items():
        array, begin, end = _tensor(file, start, name, entry)
        tensors[name] = array
        spans.append((begin, end, name))
    _check_layout(file, spans, file.size - start)
    return tensors, metadata


def write_safetensors(
    path: str | Path,
    tensors: Mapping[str, StoredArray],
    metadata: Mapping[str, str] | None = None,
    on_step: Callable[[float, float], None] | None = None,
) -> str:
    """Write tensors in their order, each read when its turn comes. Returns the sha256 of the file.

    on_step  called with (bytes written, bytes in all)

    Equal tensors and metadata make equal bytes, which the library's own writer does not promise: it draws the
    order of metadata by chance. A full disk is an OSError. Raises WeightsError when a tensor that is read has
    another shape than was said. Give it a path of `files.atomic_path`, or one in an `atomic_folder`.
    """
    names = {dtype: name for name, dtype in DTYPES.items()}
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    total = 0
    for name, tensor in tensors.items():
        end = total + math.prod(tensor.shape) * ITEM_SIZES[tensor.dtype]
        offsets = [total, end]
        header[name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
        total = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data begins at a multiple of 8, so that it can be mapped
    head = len(text).to_bytes(8, "little") + text
    digest, done = hashlib.sha256(head), 0
    with Path(path).open("wb") as file:
        file.write(head)
        for name, tensor in tensors.items():
            values = tensor.read()
            if values.shape != tensor.shape:
                raise WeightsError(f"{shorten(name)} has shape {values.shape}, expected {tensor.shape}")
            data = encode(values, tensor.dtype).reshape(-1).view("u1").data
            file.write(data)
            digest.update(data)
            done += len(data)
            if on_step is not None:
                on_step(done, total)
    return digest.hexdigest()


def _header(file: FileBytes) -> tuple[dict[str, object], int]:
    if file.size < 10:
        raise WeightsError(
            f"{file.path}: {file.size} bytes are too few for a safetensors file; fetch it again"
        )
    length = int.from_bytes(file.read(0, 8), "little")
    if length > MAX_HEADER:
        raise WeightsError(
            f"{file.path}: a header of {length} bytes; not a safetensors file, or a damaged one"
        )
    if 8 + length > file.size:
        raise WeightsError(f"{file.path}: the file ends within its header; fetch it again")
    text = file.read(8, length)
    count = text.count(b'"data_offsets"')
    if count > MAX_TENSORS:
        raise WeightsError(f"{file.path}: {count} tensors, more than {MAX_TENSORS}")
    if sum(map(text.count, (b",", b":", b"[", b"{"))) > MAX_MARKS:
        raise WeightsError(f"{file.path}: a damaged safetensors header (more values than tensors need)")
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, _RepeatedName) else "not valid JSON"
        raise WeightsError(f"{file.path}: a damaged safetensors header ({reason})") from error
    if not isinstance(header, dict):
        raise WeightsError(f"{file.path}: a damaged safetensors header (not a JSON object)")
    return header, 8 + length


class _RepeatedName(ValueError):
    pass


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _RepeatedName(f"the name {shorten(name)} appears twice")
            seen.add(name)
    return found


def _tensor(file: FileBytes, start: int, name: str, entry: object) -> tuple[StoredArray, int, int]:
    what = f"{file.path}: tensor {shorten(name)}"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise WeightsError(f"{what}: must have dtype, shape and data_offsets, and nothing else")
    stored = entry["dtype"]
    if not isinstance(stored, str) or stored not in DTYPES:
        known = " ".join(DTYPES)
        raise WeightsError(f"{what}: dtype {shorten(stored)} is not read here; known: {known}")
    dtype = DTYPES[stored]
    shape = checked_shape(entry["shape"], what)
    offsets = entry["data_offsets"]
    if not isinstance(offsets, list) or len(offsets) != 2 or any(type(at) is not int for at in offsets):
        raise WeightsError(f"{what}: damaged offsets")
    begin, end = offsets
    if not 0 <= begin <= end or start + end > file.size:
        raise WeightsError(f"{what}: its bytes lie outside the file; fetch it again")
    count = math.prod(shape)
    if end - begin != count * ITEM_SIZES[dtype]:
        raise WeightsError(f"{what}: {end - begin} bytes do not hold shape {shape} of {stored}")

    def load() -> Array:
        return decode(file.array(start + begin, count, dtype), dtype).reshape(shape)

    return StoredArray(shape, dtype, load), begin, end


def _check_layout(file: FileBytes, spans: list[tuple[int, int, str]], size: int) -> None:
    reached = 0
    for begin, end, name in sorted(spans):
        if begin != reached:
            kind = "overlaps another tensor" if begin < reached else "leaves a gap before it"
            raise WeightsError(f"{file.path}: tensor {shorten(name)} {kind}; the file is damaged")
        reached = end
    if reached != size:
        raise WeightsError(
            f"{file.path}: {size} bytes of data where the header describes {reached}; fetch it again"
        )

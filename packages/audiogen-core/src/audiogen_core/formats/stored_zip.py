"""The zip archives of torch and numpy: only the plain, uncompressed kind that both write.

Python's zipfile is made to open whatever it can: it takes bytes before the archive and between entries,
several disks and a directory of any size, which it builds in memory before anything can be checked. What is
refused here would have to be read by hand all the same, and then two readers could differ over one file.

Layout (PKWARE APPNOTE 6.3.10, sections 4.3.7, 4.3.12, 4.3.14 to 4.3.16): local headers with
data, then the central directory, then the end record; the zip64 forms above 4 GiB.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from audiogen_core.errors import WeightsError
from audiogen_core.formats.stored import Array, FileBytes, shorten

MAX_ENTRIES = 20_000
MAX_DIRECTORY = 4 << 20

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR = struct.Struct("<4sIQI")


@dataclass(frozen=True)
class Entry:
    """One stored file: `size` bytes from byte `start`. `crc` 0 means that none was recorded."""

    name: str
    start: int
    size: int
    crc: int


@dataclass(frozen=True)
class _Record:
    """What the directory says of an entry; its local header is at byte `header`."""

    raw: bytes
    header: int
    size: int
    crc: int


class StoredZip:
    """The entries of an archive by their name.

    kind    what the file is, in errors
    writer  of such files, in errors

    Raises WeightsError for anything neither writes: compressed or encrypted entries, repeated names, entries
    that overlap or leave the file, trailing bytes.
    """

    def __init__(self, file: FileBytes, kind: str, writer: str) -> None:
        self.file, self.kind, self.writer = file, kind, writer
        self._entries: dict[str, Entry] = {}
        self._verified: set[str] = set()
        count, directory, size = self._end()
        self._records = self._central(count, directory, size)
        self._limits = self._check_overlaps(self._records, directory)

    def __iter__(self) -> Iterator[str]:
        return iter(self._records)

    def __contains__(self, name: str) -> bool:
        return name in self._records

    def read(self, name: str, limit: int) -> bytes:
        """The bytes of one entry. Raises WeightsError when absent, damaged or above `limit`."""
        entry = self.entry(name)
        if entry.size > limit:
            raise self.bad(f"entry {shorten(name)} has {entry.size} bytes, more than {limit}")
        self.verify(entry)
        return self.file.read(entry.start, entry.size)

    def entry(self, name: str) -> Entry:
        """The entry of that name. Raises WeightsError when there is none, or its header is wrong."""
        if name not in self._entries:
            self._entries[name] = self._located(name)
        return self._entries[name]

    def _located(self, name: str) -> Entry:
        record = self._records.get(name)
        if record is None:
            raise self.bad(f"entry {shorten(name)} is missing")
        header = self.file.read(record.header, _LOCAL.size + len(record.raw))
        local = _LOCAL.unpack_from(header)
        if local[0] != b"PK\x03\x04" or local[9] != len(record.raw) or header[_LOCAL.size :] != record.raw:
            raise self.bad(f"entry {shorten(name)} has a local header that differs from the directory")
        start = (
            record.header + len(header) + local[10]
        )  # behind the extra field, with which torch aligns data
        if start + record.size > self._limits[record.header]:
            raise self.bad(f"entry {shorten(name)} overlaps another")
        return Entry(name, start, record.size, record.crc)

    def array(self, entry: Entry, offset: int, count: int, dtype: str) -> Array:
        """`count` stored elements from byte `offset` of an entry, its checksum verified once."""
        self.verify(entry)
        return self.file.array(entry.start + offset, count, dtype)

    def verify(self, entry: Entry) -> None:
        """Raises WeightsError when the entry's bytes do not match the recorded CRC-32."""
        if entry.name in self._verified:
            return
        if entry.crc and self.file.checksum(entry.start, entry.size) != entry.crc:
            raise self.bad(f"entry {shorten(entry.name)} fails its checksum; fetch the file again")
        self._verified.add(entry.name)

    def _end(self) -> tuple[int, int, int]:
        """Number of entries, start and length of the central directory."""
        at = self.file.size - _END.size
        if at < 0:
            raise self.bad("too short; fetch it again")
        magic, disk, first, here, count, size, start, comment = _END.unpack(self.file.read(at, _END.size))
        if magic != b"PK\x05\x06" or comment:
            raise self.bad(
                "no end record where the file ends; it is cut or has trailing bytes; fetch it again"
            )
        if 0xFFFFFFFF in (size, start) or 0xFFFF in (here, count):
            at, here, count, size, start = self._end64(at)
        elif self._has_locator(at):
            at, *_ = self._end64(at)
        # All bits set in a field of the old record mean that the zip64 record has the number.
        if disk not in (0, 0xFFFF) or first not in (0, 0xFFFF) or here != count:
            raise self.bad("an archive of several disks")
        if count > MAX_ENTRIES or size > MAX_DIRECTORY:
            raise self.bad(f"{count} entries in {size} bytes of directory, more than is sane")
        if start + size != at:
            raise self.bad("the directory does not end where the end record begins")
        return count, start, size

    def _has_locator(self, end: int) -> bool:
        at = end - _LOCATOR.size
        return at >= 0 and self.file.read(at, 4) == b"PK\x06\x07"

    def _end64(self, end: int) -> tuple[int, int, int, int, int]:
        if not self._has_locator(end) or end < _LOCATOR.size + _END64.size:
            raise self.bad("the zip64 end record is missing")
        _, _, at, _ = _LOCATOR.unpack(self.file.read(end - _LOCATOR.size, _LOCATOR.size))
        if at != end - _LOCATOR.size - _END64.size:
            raise self.bad("the zip64 end record is not where it should be")
        magic, _, _, _, _, _, here, count, size, start = _END64.unpack(self.file.read(at, _END64.size))
        if magic != b"PK\x06\x06":
            raise self.bad("the zip64 end record is damaged")
        return at, here, count, size, start

    def _central(self, count: int, start: int, size: int) -> dict[str, _Record]:
        directory = self.file.read(start, size)
        found: dict[str, _Record] = {}
        at = 0
        for _ in range(count):
            if at + _CENTRAL.size > size:
                raise self.bad("the directory is cut")
            fields = _CENTRAL.unpack_from(directory, at)
            lengths = fields[10:13]
            names = at + _CENTRAL.size
            at = names + sum(lengths)
            if fields[0] != b"PK\x01\x02" or at > size:
                raise self.bad("the directory is damaged")
            extra = names + lengths[0]
            name, record = self._record(fields, directory[names:extra], directory[extra : extra + lengths[1]])
            if name in found:
                raise self.bad(f"entry {shorten(name)} appears twice")
            found[name] = record
        if at != size:
            raise self.bad("the directory has bytes left over")
        return found

    def _record(self, fields: tuple[int, ...], raw: bytes, extra: bytes) -> tuple[str, _Record]:
        flags, method, crc, packed, size, header = (fields[index] for index in (3, 4, 7, 8, 9, 16))
        try:
            name = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.bad("an entry name that is not UTF-8") from error
        what = f"entry {shorten(name)}"
        if flags & 0x2041:  # bits 0, 6 and 13: encrypted, strongly encrypted, its local header masked
            raise self.bad(f"{what} is encrypted")
        if method != 0:
            raise self.bad(f"{what} is compressed, which {self.writer} never does; unpack and save it again")
        size, packed, header = self._wide(what, extra, (size, packed, header))
        if packed != size:
            raise self.bad(f"{what} claims two sizes")
        return name, _Record(raw, header, size, crc)

    def _wide(self, what: str, extra: bytes, narrow: tuple[int, int, int]) -> tuple[int, int, int]:
        """Sizes and offset, each from the zip64 extra field where 32 bits were not enough."""
        if 0xFFFFFFFF not in narrow:
            return narrow
        at = 0
        while at + 4 <= len(extra):
            kind, length = struct.unpack_from("<2H", extra, at)
            at += 4
            if kind == 1 and at + length <= len(extra):
                wide = list(struct.unpack_from(f"<{length // 8}Q", extra, at))
                if len(wide) >= narrow.count(0xFFFFFFFF):
                    size, packed, header = (wide.pop(0) if value == 0xFFFFFFFF else value for value in narrow)
                    return size, packed, header
            at += length
        raise self.bad(f"{what} lacks its zip64 sizes")

    def _check_overlaps(self, records: dict[str, _Record], directory: int) -> dict[int, int]:
        """Where each entry must end at the latest: the next local header, or the directory."""
        ordered = sorted(records.values(), key=lambda record: record.header)
        limits = {}
        for record, after in zip(ordered, [*ordered[1:], None], strict=True):
            limit = directory if after is None else after.header
            if record.header + _LOCAL.size + len(record.raw) + record.size > limit:
                raise self.bad(
                    f"entry {shorten(record.raw.decode())} overlaps another, or lies outside the file"
                )
            limits[record.header] = limit
        return limits

    def bad(self, reason: str) -> WeightsError:
        """The error for a file that is not as it should be."""
        return WeightsError(f"{self.file.path}: not {self.kind} that can be read: {reason}")

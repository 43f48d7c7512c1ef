"""A folder of codes, to train models on: its files, how they are committed, and how they are checked.

    meta.json           which codec made the codes, and how the audio was prepared
    plan.json           which audio file goes into which shard; written before anything is encoded
    shard-00000.u16     codes, uint16 little endian (frames, codebooks), without a header
    shard-00000.jsonl   one line per track, in the order of its frames, or per file that was left out
    report.jsonl        all that was left out, with reasons
    captions.jsonl      what is said of each file, and where: file_name, text, source

A shard exists when its .jsonl does: that file is renamed into place last. What a shard holds depends on the
plan and the audio alone, so a rerun after any accident ends with the same bytes.

Reasons in report.jsonl, of files: `format` (by its suffix a kind that is not read), `not_audio`, `empty`,
`damaged` (cut off, or coded in a way that is not read), `non_finite`, `unreadable` (the system says why),
`channels` (more than the codec takes), `too_short`, `silent`, `duplicate` (the bytes or the sound of another
file); of folders: `link`, `output` (this program wrote it), `unreadable`.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiogen_core.codec import CodecInfo
from audiogen_core.dataset.folder import META, Caption, Skip
from audiogen_core.errors import CodesError, OptionError
from audiogen_core.files import atomic_path
from audiogen_core.settings import from_mapping, parse_json, read_json, read_text

FORMAT_VERSION = 1
REPORT = "report.jsonl"
CAPTIONS = "captions.jsonl"

MAX_SIZE = 1 << 16
"""Entries of the largest codebook whose codes fit into a shard."""

FACTS = ("codec", "codec_hash", "sample_rate", "frame_rate", "hop_length", "codebooks", "codebook_size")
"""What a checkpoint keeps of the description of its data: the codec's id and the hash of its codebooks, Hz,
Hz, samples per frame, K, N. They tie codes, models and codecs together."""

Frames = NDArray[np.uint16]  # (frames, codebooks)


@dataclass(frozen=True)
class Meta:
    """What all shards of a folder have in common. Rates in Hz, `hop_length` in samples."""

    codec: str
    codec_hash: str
    sample_rate: int
    hop_length: int
    codebooks: int
    codebook_size: int
    options: dict[str, Any] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    @property
    def frame_rate(self) -> float:
        """Frames per second, Hz."""
        return self.sample_rate / self.hop_length

    @classmethod
    def of(cls, info: CodecInfo, codec_hash: str, codebooks: int, options: dict[str, Any]) -> Meta:
        return cls(
            info.name, codec_hash, info.sample_rate, info.hop_length, codebooks, info.codebook_size, options
        )

    @classmethod
    def load(cls, data: str | Path) -> Meta:
        """Read a folder's meta.json. Raises CodesError."""
        path = Path(data) / META
        if not path.exists():
            raise CodesError(f"{data}: not a folder of codes; make one with: audiogen-core encode FOLDER")
        table = read_json(path, CodesError)
        version = table.get("format_version")
        if not isinstance(version, int) or version > FORMAT_VERSION:
            raise CodesError(f"{path}: format version {version!r}; this program knows up to {FORMAT_VERSION}")
        options = table.pop("options", {})
        meta = from_mapping(cls, table, str(path), CodesError)
        counts = (meta.sample_rate, meta.hop_length, meta.codebooks, meta.codebook_size, version)
        if min(counts) < 1 or meta.codebook_size > MAX_SIZE or not isinstance(options, dict):
            raise CodesError(f"{path}: the description of the codes is damaged; encode into a new folder")
        return cls(**{**vars(meta), "options": options})

    @property
    def facts(self) -> dict[str, Any]:
        """What a checkpoint keeps of it; see `FACTS`."""
        return {key: getattr(self, key) for key in FACTS}

    def save(self, data: Path) -> None:
        with atomic_path(data / META) as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Track:
    """A stretch of audio that was encoded as one: a file, or one channel of it.

    path      relative to the folder of audio
    frames    how many
    channel   of the file, where channels are tracks of their own; else None
    split     "train" or "val"
    gain_db   the gain that was applied
    sha1      of the prepared audio as 16-bit PCM
    crc32     of its codes
    """

    path: str
    frames: int
    channel: int | None
    split: str
    gain_db: float
    sha1: str
    crc32: int


Part = tuple[Track, Frames] | Skip
"""What encoding a file gives, once or more."""


@dataclass(frozen=True)
class Shard:
    """A committed shard: its tracks with the frame each starts at, and what was left out."""

    path: Path  # of the .u16 file
    tracks: tuple[Track, ...]
    skips: tuple[Skip, ...]

    @property
    def frames(self) -> int:
        return sum(track.frames for track in self.tracks)

    def open(self, codebooks: int) -> Frames:
        """All codes (frames, codebooks). Raises CodesError when the size is not right."""
        return self.stretch(codebooks).read(0, self.frames)

    def stretch(self, codebooks: int) -> Stretch:
        """Its codes, as they lie there. Raises CodesError when the size is not right."""
        expected = self.frames * codebooks * 2
        try:
            facts = self.path.stat()
        except FileNotFoundError as error:
            raise CodesError(f"{self.path}: the shard's codes are missing; {REMEDY}") from error
        except OSError as error:
            raise CodesError(f"{self.path}: cannot be read ({error.strerror}); {REMEDY}") from error
        if facts.st_size != expected:
            off = facts.st_size - expected
            how = f"{abs(off)} byte(s) {'short' if off < 0 else 'too long'}"
            raise CodesError(f"{self.path}: {how}, {expected} are expected; {REMEDY}")
        return Stretch(self.path, _stamp(facts), codebooks)

    def by_path(self, codebooks: int) -> Kept:
        """The tracks of each file with their codes, of files that were used as a whole.

        Raises CodesError when the size is not right.
        """
        codes, kept = self.stretch(codebooks), dict[str, list[tuple[Track, Stretch]]]()
        for track in self.tracks:
            kept.setdefault(track.path, []).append((track, codes))
            codes = replace(codes, start=codes.start + track.frames)
        skipped = {skip.path for skip in self.skips}  # where one channel was left out, say
        return {path: tuple(found) for path, found in kept.items() if path not in skipped}

    def check(self, meta: Meta) -> None:
        """Raise CodesError unless the codes of all tracks are those that were written."""
        codes = self.stretch(meta.codebooks)
        for track in self.tracks:
            codes.check(track, meta.codebook_size)
            codes = replace(codes, start=codes.start + track.frames)


@dataclass(frozen=True)
class Stretch:
    """Codes that are read from a shard when they are needed, from the frame `start` on.

    The file is not mapped into memory: where one that is mapped is cut short, the process is killed.
    """

    path: Path
    stamp: tuple[int, ...]
    codebooks: int
    start: int = 0

    def read(self, first: int, frames: int) -> Frames:
        """So many frames, as (frames, codebooks). Raises CodesError when the file has changed since."""
        row = 2 * self.codebooks
        try:
            with self.path.open("rb", buffering=0) as file:
                changed = _stamp(os.fstat(file.fileno())) != self.stamp
                file.seek((self.start + first) * row)
                content = b"" if changed else file.read(frames * row)
        except OSError as error:
            raise CodesError(f"{self.path}: cannot be read ({error.strerror})") from error
        if changed or len(content) != frames * row:
            raise CodesError(f"{self.path}: has changed while it was in use; start again")
        return np.frombuffer(content, "<u2").reshape(frames, self.codebooks)

    def check(self, track: Track, codebook_size: int) -> None:
        """Raise CodesError unless these are the codes of the track, as they were written."""
        codes = self.read(0, track.frames)
        if int(codes.max()) >= codebook_size:
            raise CodesError(f"{self.path}: {track.path!r} holds codes beyond the codebook; {REMEDY}")
        if checksum(codes) != track.crc32:
            raise CodesError(f"{self.path}: the codes of {track.path!r} have changed; {REMEDY}")


Kept = Mapping[str, tuple[tuple[Track, Stretch], ...]]
"""Tracks by the path of their file, and where their codes lie."""


def _stamp(facts: os.stat_result) -> tuple[int, ...]:
    """What changes when a file is written to or replaced."""
    return facts.st_size, facts.st_mtime_ns, facts.st_ino


REMEDY = "delete the shard's two files and run encode again"


def shard_path(data: Path, number: int) -> Path:
    """The .u16 file of a shard."""
    return data / f"shard-{number:05d}.u16"


def is_committed(data: Path, number: int) -> bool:
    """Whether a shard is finished."""
    return shard_path(data, number).with_suffix(".jsonl").exists()


def take_back(data: Path, number: int) -> None:
    """Make a shard one that is not finished, if it is."""
    shard_path(data, number).with_suffix(".jsonl").unlink(missing_ok=True)


def write_shard(data: Path, number: int, parts: list[Part]) -> None:
    """Commit a shard: the codes first, the index last."""
    path = shard_path(data, number)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        for part in parts:
            if not isinstance(part, Skip):
                file.write(np.ascontiguousarray(part[1], dtype="<u2").tobytes())
    lines = [asdict(part if isinstance(part, Skip) else part[0]) for part in parts]
    with atomic_path(path.with_suffix(".jsonl")) as temporary:
        temporary.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def read_shards(data: str | Path) -> list[Shard]:
    """All committed shards, in order. Raises CodesError when an index is damaged."""
    indexes = Path(data).glob("shard-*.jsonl")  # by number: from 100,000 on the names are longer
    return [read_shard(path) for path in sorted(indexes, key=lambda path: (len(path.name), path.name))]


def read_shard(index: Path) -> Shard:
    """The shard of an index. Raises CodesError when the index is damaged."""
    tracks: list[Track] = []
    skips: list[Skip] = []
    try:
        for line in read_text(index, OptionError).splitlines():
            table = parse_json(line, "a line", OptionError)
            if isinstance(table, dict) and "reason" in table:
                skips.append(from_mapping(Skip, table, str(index)))
            else:
                tracks.append(from_mapping(Track, table, str(index)))
    except (OSError, ValueError) as error:
        raise CodesError(f"{index}: the index is damaged ({error}); {REMEDY}") from error
    if any(track.frames < 1 or track.split not in ("train", "val") for track in tracks):
        raise CodesError(f"{index}: the index is damaged (impossible track); {REMEDY}")
    return Shard(index.with_suffix(".u16"), tuple(tracks), tuple(skips))


def checksum(codes: Frames) -> int:
    """The CRC-32 of some codes as they lie on the disk."""
    return zlib.crc32(np.ascontiguousarray(codes, dtype="<u2").tobytes())


def write_report(data: Path, skips: list[Skip]) -> None:
    """Write report.jsonl."""
    with atomic_path(data / REPORT) as temporary:
        temporary.write_text("".join(json.dumps(asdict(skip)) + "\n" for skip in skips), encoding="utf-8")


def write_captions(data: Path, found: Iterable[tuple[str, Caption]]) -> Counter[str]:
    """Write captions.jsonl, as `captions` of a folder reads it, where it is not so already. Returns how many
    there are of each source."""
    counts = Counter[str]()
    with (
        atomic_path(data / CAPTIONS, unless_same=True) as temporary,
        temporary.open("w", encoding="utf-8") as file,
    ):
        for path, caption in found:
            file.write(json.dumps({"file_name": path, **asdict(caption)}) + "\n")
            counts[caption.source] += 1
    return counts


def read_report(data: str | Path) -> list[Skip]:
    """What was left out, by report.jsonl; nothing where there is none. Raises CodesError."""
    path = Path(data) / REPORT
    return list(read_shard(path).skips) if path.exists() else []


def tracks_of(shards: list[Shard]) -> Iterator[tuple[Shard, int, Track]]:
    """Every track with its shard and the frame it starts at, without those that `repeats` finds.

    The same sound in another file would count twice, or stand in both splits.
    """
    again = {(other.path, other.channel) for other, _ in repeats(shards)}
    for shard in shards:
        start = 0
        for track in shard.tracks:
            if (track.path, track.channel) not in again:
                yield shard, start, track
            start += track.frames


def repeats(shards: list[Shard]) -> list[tuple[Track, Track]]:
    """Each track whose sound, as it was encoded, is that of an earlier file or channel; with that one."""
    firsts: dict[str, Track] = {}
    repeated = []
    for track in (track for shard in shards for track in shard.tracks):
        first = firsts.setdefault(track.sha1, track)
        if track.sha1 and (first.path, first.channel) != (track.path, track.channel):
            repeated.append((track, first))
    return repeated


def identity(tracks: Iterable[Track]) -> str:
    """16 hex digits that tell the codes of some tracks from any others; names do not matter."""
    told = "".join(f"{track.split} {track.frames} {track.crc32}\n" for track in tracks)
    return hashlib.sha256(told.encode()).hexdigest()[:16]

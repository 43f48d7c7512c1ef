"""A folder of audio -> a folder of codes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from audiogen_core import codecs
from audiogen_core.audio import probe
from audiogen_core.codec import Codec, CodecInfo, fingerprint
from audiogen_core.coding import coded_size
from audiogen_core.dataset.engines import Job, check_engine, run_jobs
from audiogen_core.dataset.folder import META, Skip, each_caption, in_words, scan
from audiogen_core.dataset.options import Preparation
from audiogen_core.dataset.plan import TAIL, Changes, Entry, Groups, make_plan, outdated, planned, read_plan
from audiogen_core.dataset.prepare import look
from audiogen_core.dataset.shards import (
    CAPTIONS,
    MAX_SIZE,
    Kept,
    Meta,
    Shard,
    is_committed,
    read_shards,
    repeats,
    shard_path,
    tracks_of,
    write_captions,
    write_report,
)
from audiogen_core.describe import facts_of
from audiogen_core.errors import AudioError, CodesError, OptionError
from audiogen_core.files import require_room
from audiogen_core.models import Fetch
from audiogen_core.progress import counted
from audiogen_core.sound_reader import name_of
from audiogen_core.training.errors import DiskFull, means_full
from audiogen_core.training.lock import lock
from audiogen_core.values import closed

OnStep = Callable[[int, int], None]

VAL_PERMILLE = 50
"""Of the files, that are held out where nobody says."""

log = logging.getLogger(__name__)


class NoUsableAudio(AudioError):
    """None of the files of a folder could be used."""

    exit_code = 3


@dataclass(frozen=True)
class EncodeReport:
    """What a folder of codes holds now.

    tracks, seconds  of both splits
    val_seconds      of what is held out
    tails            files whose last tenth is held out: there was nothing else to hold out
    encoded          shards made by this call; 0 when all was there
    changes          which files are new since the call before, which have changed, and which are gone
    captions         how many come from where, as a sentence; "" where none could be read
    skips            what was left out, with reasons
    """

    data: Path
    tracks: int
    seconds: float
    val_seconds: float
    tails: int
    encoded: int
    changes: Changes
    captions: str
    skips: tuple[Skip, ...]


def length(seconds: float) -> str:
    """How long sounds are, for a reader."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def some(names: Sequence[str], most: int = 9) -> str:
    """The first of some names, and how many more there are."""
    more = f", and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(name_of, names[:most])) + more


def headline(count: int, seconds: float, skips: Sequence[Skip]) -> str:
    """How many files there are, how long they are, and which are left out."""
    files = f"{count} file{'s' * (count != 1)}, {length(seconds)}"
    if not skips:
        return files
    return f"{files}; {len(skips)} left out: {some([f'{skip.path} ({skip.why})' for skip in skips])}"


@dataclass(frozen=True)
class Found:
    """What a folder of audio holds; it was read for that, but nothing is encoded yet.

    files, seconds  that can be used, and how long they are in all
    to_encode  seconds of them that have no codes yet
    shards     how many are still to be made
    held_out   paths of files that are kept to judge by
    tails      whether that is the last tenth of each file instead
    skips      what is left out, with reasons
    """

    files: int
    seconds: float
    to_encode: float
    shards: int
    held_out: tuple[str, ...]
    tails: bool
    skips: tuple[Skip, ...]

    @property
    def headline(self) -> str:
        """How many files there are, how long they are, and which are left out."""
        return headline(self.files, self.seconds, self.skips)

    @classmethod
    def of(cls, data: Path, groups: Groups, passed: list[Skip], again: Collection[int] = ()) -> Found:
        """What a plan says; `again` are groups whose codes are there and are to be made anew."""
        entries = [entry for group in groups for entry in group]
        missing = [
            group for number, group in enumerate(groups) if number in again or not is_committed(data, number)
        ]
        used = [entry for entry in entries if entry.used]
        left_out = [Skip(entry.path, entry.reason, entry.message) for entry in entries if entry.reason]
        copies = [
            Skip(e.path, "duplicate", f"the same bytes as {e.duplicate}") for e in entries if e.duplicate
        ]
        return cls(
            files=len(used),
            seconds=sum(entry.seconds for entry in used),
            to_encode=sum(entry.seconds for group in missing for entry in group if entry.used),
            shards=len(missing),
            held_out=tuple(entry.path for entry in used if entry.split == "val"),
            tails=any(entry.split == TAIL for entry in used),
            skips=tuple(sorted([*passed, *left_out, *copies], key=lambda skip: skip.path)),
        )


def find(folder: Path, data: Path, info: CodecInfo, on_look: OnStep | None = None) -> Found:
    """What `encode` would find in a folder, with what is usual in its options; nothing is written.

    info  of the codec
    on_look  called with (done, in all) as files are looked at

    Raises NoUsableAudio, OptionError and CodesError as `encode` does.
    """
    _check_places(folder, data)
    files, passed = scan(folder)
    check_room(folder, data, files, info, options := Preparation())
    before, listen = read_plan(data), partial(look, info=info, options=options)
    groups = planned(folder, before, files, VAL_PERMILLE, "file", listen, on_look)
    found = Found.of(data, groups, passed, outdated(before, groups))
    if not found.files:
        raise NoUsableAudio(_nothing(folder, list(found.skips)))
    return found


@closed()
def encode(
    folder: str | Path,
    out: str | Path,
    *,
    codec: str | Path | Codec = "demo",
    ops: str = "numpy",
    engine: str = "local",
    workers: int | None = None,
    options: Preparation | None = None,
    val_permille: int = VAL_PERMILLE,
    split_by: str = "file",
    fetch: Fetch | None = None,
    on_look: OnStep | None = None,
    on_found: Callable[[Found], None] | None = None,
    on_step: OnStep | None = None,
) -> EncodeReport:
    """Encode the audio files below `folder` into `out`; what is done already is not done again.

    codec         a name, a path, or a loaded codec (which then runs in this process)
    ops           "numpy", "torch", "torch:cuda"
    engine        "local": a pool of processes on this machine. "ray": Ray Data, on this machine or a cluster
                  that shares the folders
    workers       processes; None: one per core (four for a GPU), but no more than there are shards to make
    options       how audio is prepared
    val_permille  how much is held out, in thousandths of the files
    split_by      what is held out as a whole: a "file", or the files of a "parent" folder
    fetch         how a codec that is not here comes; see `audiogen_core.codecs.load`. Workers fetch nothing
    on_look       called with (done, in all) as files are looked at
    on_found      called with what was found before anything is encoded; what it raises ends the call
    on_step       called with (shards done, shards in all)

    The shards are the same bytes whatever the engine, the number of workers, and however often the work was
    interrupted. What is left out is listed in report.jsonl with a reason. Files are known by their path and
    the hash of their bytes: new ones go into new shards; the codes of those that have changed or are gone are
    taken out of the shards they were in, whose other codes are taken over. The log tells. What is said of
    the files (see `folder.captions`) is kept in captions.jsonl; where a table or text of it cannot be read,
    the log says which, and there is none.

    Raises NoUsableAudio when no file is there or could be used, OptionError for options that contradict the
    folder, CodesError when it is damaged or cannot be written, DiskFull, WorkerDied, and MissingDependency
    when Ray is not installed.
    """
    by_value, options = isinstance(codec, Codec), options or Preparation()
    check_engine(engine, workers, by_value)
    folder, data = Path(folder).absolute(), Path(out)
    _check_places(folder, data)
    files, passed = scan(folder)
    if not files:  # codes that are there stay: perhaps a disk is not mounted
        raise NoUsableAudio(_nothing(folder, passed))
    facts = codec.info if isinstance(codec, Codec) else facts_of(codec)
    if facts is not None:
        check_room(folder, data, files, facts, options)
    loaded = codec if isinstance(codec, Codec) else codecs.load_codec(codec, ops, fetch)
    if facts is None:
        check_room(folder, data, files, loaded.info, options)
    meta = _describe(loaded, options, val_permille, split_by)
    _check(data, meta)
    with _writing(data):
        data.mkdir(parents=True, exist_ok=True)
        with lock(data):
            for leftover in data.glob(".*.tmp.*"):  # of a killed run
                leftover.unlink(missing_ok=True)
            meta.save(data)
            before = read_plan(data)
            shards = {shard.path.name: shard for shard in read_shards(data.absolute())}
            groups = make_plan(
                folder,
                data,
                files,
                val_permille=val_permille,
                split_by=split_by,
                look=partial(look, info=loaded.info, options=options),
                on_step=on_look,
            )
            changes, known = Changes.of(before, groups), set(chain(*before))
            if before and any(vars(changes).values()):
                log.warning("%s: since it was encoded, %s", name_of(folder), _told(changes))
            source = "" if isinstance(codec, Codec) else _source(codec)
            jobs = [
                Job(
                    folder,
                    data.absolute(),
                    number,
                    tuple(group),
                    source,
                    meta.codec_hash,
                    ops,
                    options,
                    _kept(shards.get(shard_path(data, number).name), known, group, meta.codebooks),
                )
                for number, group in enumerate(groups)
                if not is_committed(data, number)
            ]
            if on_found is not None:
                on_found(Found.of(data, groups, passed))
            report = counted(on_step, len(groups))
            report(len(groups) - len(jobs))
            for _ in run_jobs(jobs, loaded, engine, workers, by_value):
                report(1)
            return _finish(folder, data, meta, groups, len(jobs), changes, passed)


@closed()
def verify(data: str | Path) -> int:
    """Check every shard to the last byte, and that none is missing; returns the frames there are.

    Raises CodesError, with the shard's name.
    """
    data = Path(data)
    meta, total = Meta.load(data), 0
    for number in range(len(read_plan(data))):
        if not is_committed(data, number):
            raise CodesError(f"{shard_path(data, number)}: not there yet; run encode again to make it")
    for shard in read_shards(data):
        shard.check(meta)
        total += shard.frames
    return total


def _source(codec: str | Path) -> str:
    """The name of a codec, or its path in a form that holds in every process."""
    path = Path(codec).expanduser()
    return str(path.absolute()) if path.exists() else str(codec)


def _describe(codec: Codec, options: Preparation, val_permille: int, split_by: str) -> Meta:
    """What will stand in meta.json. Raises OptionError for what cannot be."""
    count = options.count(codec.info)
    if not 1 <= count <= codec.info.codebooks:
        raise OptionError(f"{codec.info.name} has 1 to {codec.info.codebooks} codebooks, asked for {count}")
    if codec.info.codebook_size > MAX_SIZE:
        raise OptionError(
            f"{codec.info.name}: codebooks of {codec.info.codebook_size} do not fit into 16 bits"
        )
    if not 0 <= val_permille < 1000:
        raise OptionError(f"val_permille must lie in [0, 1000), got {val_permille}")
    if split_by not in ("file", "parent"):
        raise OptionError(f"split_by must be file or parent, got {split_by!r}")
    kept: dict[str, Any] = {name: value for name, value in asdict(options).items() if name != "codebooks"}
    kept |= {"val_permille": val_permille, "split_by": split_by}
    return Meta.of(codec.info, fingerprint(codec.codebook_vectors()), count, kept)


def _check_places(folder: Path, data: Path) -> None:
    """Refuse what cannot work before the codec is loaded."""
    if not folder.is_dir():
        raise AudioError(f"{folder}: no such folder of audio")
    if data.exists() and not data.is_dir():
        raise OptionError(f"{data}: is a file; choose another output")
    if data.exists() and data.samefile(folder):
        raise OptionError(f"{data}: the folder of audio itself; choose another output")
    require_room(data / META, kind=CodesError)


def check_room(folder: Path, data: Path, files: Sequence[str], info: CodecInfo, options: Preparation) -> None:
    """Raise CodesError unless there is room for the codes of files of which there are none yet.

    How long files are is what their headers say.
    """
    groups = enumerate(read_plan(data))
    done = {entry.path for number, group in groups if is_committed(data, number) for entry in group}
    seconds = 0.0
    for path in files:
        with suppress(AudioError):  # encoding says what is wrong with it
            if path not in done:
                header = probe(folder / path)
                tracks = header.channels if options.stereo == "split" and info.channels == 1 else 1
                seconds += tracks * header.frames / header.sample_rate
    size = coded_size(info, seconds, options.count(info)) / 2  # two bytes for a code
    require_room(data / META, size, CodesError)


def _check(data: Path, meta: Meta) -> None:
    """Refuse other data than what lies there, before anything is written."""
    if not (data / META).exists():
        if data.exists() and any(data.glob("shard-*")):
            raise CodesError(f"{data}: holds shards but no {META}; choose another output")
        return
    there = Meta.load(data)
    rows = {name: (getattr(there, name), value) for name, value in vars(meta).items() if name != "options"}
    rows |= {name: (there.options.get(name, value), value) for name, value in meta.options.items()}
    for name, (old, new) in rows.items():
        if old != new:
            raise OptionError(
                f"{data}: was made with {name} {old}, asked for {new}; "
                "choose another output, or the same settings"
            )


@contextmanager
def _writing(data: Path) -> Iterator[None]:
    """Errors of the system, here and in the workers, as ours."""
    try:
        yield
    except OSError as error:
        if means_full(error):
            raise DiskFull(
                f"{data}: no room left; make some and run encode again, what is done stays"
            ) from error
        where, what = name_of(error.filename or data), error.strerror or str(error)
        raise CodesError(f"{where}: {what}; choose an output that can be written") from error


def _kept(shard: Shard | None, before: set[Entry], group: list[Entry], codebooks: int) -> Kept:
    """The tracks in a shard of the files of its group that are what they were."""
    if shard is None:
        return {}
    with suppress(CodesError):  # its codes are cut short or gone
        kept = shard.by_path(codebooks)
        return {entry.path: kept[entry.path] for entry in group if entry in before and entry.path in kept}
    return {}


def _finish(
    folder: Path,
    data: Path,
    meta: Meta,
    groups: Groups,
    encoded: int,
    changes: Changes,
    passed: list[Skip],
) -> EncodeReport:
    shards = read_shards(data)
    skips = [*passed, *(skip for shard in shards for skip in shard.skips)]
    for track, first in repeats(shards):
        other = first.path if first.path != track.path else f"its channel {first.channel}"
        skips.append(Skip(track.path, "duplicate", f"the same sound as {other}"))
    write_report(data, skips)
    tracks = [track for _, _, track in tracks_of(shards)]
    if not tracks:
        raise NoUsableAudio(_nothing(folder, skips))
    frames = {split: sum(t.frames for t in tracks if t.split == split) for split in ("train", "val")}
    return EncodeReport(
        data=data,
        tracks=len(tracks),
        seconds=(frames["train"] + frames["val"]) / meta.frame_rate,
        val_seconds=frames["val"] / meta.frame_rate,
        tails=sum(entry.split == TAIL and not entry.duplicate for group in groups for entry in group),
        encoded=encoded,
        changes=changes,
        captions=_keep_captions(folder, data, list(dict.fromkeys(track.path for track in tracks))),
        skips=tuple(skips),
    )


def _keep_captions(folder: Path, data: Path, files: Sequence[str]) -> str:
    """Write what is said of the files that have codes; returns how many captions come from where."""
    try:
        return in_words(write_captions(data, each_caption(folder, files)))
    except AudioError as error:  # no reason to do without the codes
        log.warning("no captions are kept: %s", error)
        (data / CAPTIONS).unlink(missing_ok=True)
        return ""


def _told(changes: Changes) -> str:
    """Which files are new, have changed and are gone, as far as they fit on a line."""
    verbs = {"new": "came", "changed": "changed", "gone": "went"}
    return ", ".join(
        f"{len(paths)} files {verbs[kind]} ({', '.join(map(name_of, paths[:3]))}{', ...' * (len(paths) > 3)})"
        for kind, paths in vars(changes).items()
        if paths
    )


def _nothing(folder: Path, skips: list[Skip]) -> str:
    if not skips:
        return (
            f"{folder}: no audio files in this folder; read are WAV, FLAC, Ogg, Opus, MP3 and AIFF, and with "
            "audiogen-core[ffmpeg] M4A and others"
        )
    first = f"{name_of(skips[0].path)}: {skips[0].message}"
    return f"{folder}: no usable audio; {len(skips)} were left out, the first of them {first}"

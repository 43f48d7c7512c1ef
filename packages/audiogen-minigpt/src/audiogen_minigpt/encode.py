"""A folder of audio -> a folder of codes: the conductor, and the three engines that run the same function."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from threading import Thread
from typing import Any

from audiogen_core.codec import Codec, fingerprint
from audiogen_core.errors import AudioError, CodesError, MissingDependency, OptionError
from audiogen_minigpt.lock import lock
from audiogen_minigpt.plan import Groups, make_plan, read_plan
from audiogen_minigpt.prepare import Options, encode_track
from audiogen_minigpt.shards import (
    META,
    Meta,
    Part,
    Skip,
    is_committed,
    read_shards,
    write_report,
    write_shard,
)

OnStep = Callable[[int, int], None]


class NoUsableAudio(AudioError):
    """None of the files of a folder could be used."""

    exit_code = 3


@dataclass(frozen=True)
class EncodeReport:
    """What a folder of codes holds now.

    tracks, seconds  of both splits
    val_seconds      of what is held out
    encoded          shards made by this call; 0 when all was there
    skips            the files that were left out, with reasons
    """

    data: Path
    tracks: int
    seconds: float
    val_seconds: float
    encoded: int
    skips: tuple[Skip, ...]


@dataclass(frozen=True)
class _Job:
    """All a worker needs to make one shard; plain values, so that any engine can send it."""

    folder: str
    data: str
    number: int
    codec: str
    ops: str
    options: Options


def encode(
    folder: str | Path,
    out: str | Path,
    *,
    codec: str | Path | Codec = "demo",
    ops: str = "numpy",
    engine: str = "local",
    workers: int | None = None,
    options: Options | None = None,
    val_permille: int = 50,
    split_by: str = "file",
    on_step: OnStep | None = None,
) -> EncodeReport:
    """Encode the audio files below `folder` into `out`; what is done already is not done again.

    codec         a name, a path, or a loaded codec (which then runs in this process)
    ops           "numpy", "torch", "torch:cuda"
    engine        "local": a pool of processes on this machine. "ray": Ray Data, on this machine or a cluster
                  that shares the folders
    workers       processes; None: one per core, but no more than there are shards to make
    options       how audio is prepared
    val_permille  how much is held out, in thousandths of the files
    split_by      what is held out as a whole: a "file", or the files of a "parent" folder
    on_step       called with (shards done, shards in all)

    The shards are the same bytes whatever the engine, the number of workers, and however often the work was
    interrupted. Files that cannot be used are listed in report.jsonl with a reason.

    Raises NoUsableAudio when no file could be used, OptionError for options that contradict the folder,
    MissingDependency when Ray is not installed.
    """
    if engine not in ("local", "ray"):
        raise OptionError(f"engine must be local or ray, got {engine!r}")
    options = options or Options()
    folder, data = Path(folder), Path(out)
    loaded = codec if isinstance(codec, Codec) else _load(str(codec), ops)
    meta = _describe(loaded, options)
    _begin(folder, data, meta)
    with lock(data):
        groups = make_plan(folder, data, val_permille=val_permille, split_by=split_by)
        meta.save(data)
        missing = [number for number in range(len(groups)) if not is_committed(data, number)]
        done = len(groups) - len(missing)
        if on_step:
            on_step(done, len(groups))
        jobs = [_Job(str(folder), str(data), number, str(codec), ops, options) for number in missing]
        for _ in _run(jobs, groups, loaded, isinstance(codec, Codec), engine, workers):
            done += 1
            if on_step:
                on_step(done, len(groups))
        return _finish(folder, data, meta, len(missing))


def _begin(folder: Path, data: Path, meta: Meta) -> None:
    """Refuse what cannot work before anything is written."""
    if not folder.is_dir():
        raise AudioError(f"{folder}: no such folder of audio")
    if data.exists() and not data.is_dir():
        raise OptionError(f"{data}: a file, not a folder; choose another output")
    if data.resolve() == folder.resolve():
        raise OptionError(f"{data}: the folder of audio itself; choose another output")
    if (data / META).exists():
        there = Meta.load(data)
        for name, value in vars(meta).items():
            if getattr(there, name) != value:
                raise OptionError(
                    f"{data}: was made with {name} {getattr(there, name)}, asked for {value}; "
                    "choose another output, or the same settings"
                )
    elif data.exists() and any(data.glob("shard-*")):
        raise CodesError(f"{data}: holds shards but no {META}; choose another output")
    try:
        data.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f"{data}: cannot be made ({error.strerror})") from error


def _describe(codec: Codec, options: Options) -> Meta:
    count = options.count(codec)
    if not 1 <= count <= codec.info.codebooks:
        raise OptionError(f"{codec.info.name} has 1 to {codec.info.codebooks} codebooks, asked for {count}")
    if codec.info.codebook_size > 1 << 16:
        raise OptionError(
            f"{codec.info.name}: codebooks of {codec.info.codebook_size} do not fit into 16 bits"
        )
    kept = {name: value for name, value in asdict(options).items() if name != "codebooks"}
    return Meta.of(codec.info, fingerprint(codec.codebook_vectors()), count, kept)


def _run(
    jobs: list[_Job], groups: Groups, codec: Codec, inline: bool, engine: str, workers: int | None
) -> Iterator[int]:
    """Carry out the jobs, yielding each shard's number when it is committed."""
    if workers is not None and workers < 1:
        raise OptionError(f"workers must be at least 1, got {workers}")
    if not jobs:
        return
    count = min(workers or os.cpu_count() or 1, len(jobs))
    if engine == "ray":
        if inline:
            raise OptionError("engine ray needs the codec's name or path, not a loaded codec")
        yield from _with_ray(jobs, count)
    elif inline or count == 1:
        for job in jobs:
            yield _make(job, groups, codec)
    else:
        yield from _with_pool(jobs, count)


def _make(job: _Job, groups: Groups, codec: Codec) -> int:
    """Make one shard: the one function behind every engine."""
    parts: list[Part] = []
    for entry in groups[job.number]:
        result = encode_track(Path(job.folder), entry, codec, job.options)
        parts += [result] if isinstance(result, Skip) else result
    write_shard(Path(job.data), job.number, parts)
    return job.number


def _work(job: _Job) -> int:
    """`_make` in a process of its own, which loads the codec and the plan once."""
    return _make(job, read_plan(Path(job.data)), _load(job.codec, job.ops))


@lru_cache(maxsize=1)
def _load(codec: str, ops: str) -> Codec:
    from audiogen_core import codecs

    return codecs.load(codec, ops)


def _with_pool(jobs: list[_Job], count: int) -> Iterator[int]:
    context = get_context("spawn")
    with _one_thread_each(), ProcessPoolExecutor(count, context, _end_with_the_parent) as pool:
        futures = [pool.submit(_work, job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise CodesError(
                "a worker died, perhaps for want of memory; run again with fewer workers (what is done stays)"
            ) from error
        finally:
            for future in futures:
                future.cancel()


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Workers started inside compute with one thread each: there is one worker per core already."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _end_with_the_parent() -> None:
    """A worker whose parent was killed would wait for work for ever: it watches, and ends too."""
    parent = parent_process()
    if parent is not None:
        sentinel = parent.sentinel
        Thread(target=lambda: (wait([sentinel]), os._exit(1)), daemon=True).start()


def _with_ray(jobs: list[_Job], count: int) -> Iterator[int]:
    try:
        import ray
    except ModuleNotFoundError as error:
        raise MissingDependency("ray", 'pip install "audiogen-minigpt[ray]"') from error
    if not ray.is_initialized():
        settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if "RAY_ADDRESS" not in os.environ:  # no cluster was named: a small one on this machine
            settings |= {"num_cpus": count, "include_dashboard": False}
        ray.init(**settings)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    dataset = ray.data.from_items([{"job": job} for job in jobs], override_num_blocks=len(jobs))
    for row in dataset.map(_work_row, num_cpus=1).iter_rows():
        yield int(row["number"])


def _work_row(row: dict[str, _Job]) -> dict[str, int]:
    return {"number": _work(row["job"])}


def _finish(folder: Path, data: Path, meta: Meta, made: int) -> EncodeReport:
    shards = read_shards(data)
    skips = tuple(skip for shard in shards for skip in shard.skips)
    write_report(data, list(skips))
    tracks = [track for shard in shards for track in shard.tracks]
    if not tracks:
        first = f"; the first: {skips[0].message}" if skips else ""
        raise NoUsableAudio(f"{folder}: none of its {len(skips)} audio files could be used{first}")
    seconds = {split: sum(t.frames for t in tracks if t.split == split) for split in ("train", "val")}
    return EncodeReport(
        data=data,
        tracks=len(tracks),
        seconds=(seconds["train"] + seconds["val"]) / meta.frame_rate,
        val_seconds=seconds["val"] / meta.frame_rate,
        encoded=made,
        skips=skips,
    )

"""The engines that make shards: in this process, in a pool of processes, on Ray. One function serves all."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from socket import gethostname
from threading import Thread
from typing import Any

from audiogen_core.codec import Codec, fingerprint
from audiogen_core.dataset.options import Preparation
from audiogen_core.dataset.plan import Entry
from audiogen_core.dataset.prepare import encode_track
from audiogen_core.dataset.shards import Kept, Part, Stretch, Track, write_shard
from audiogen_core.errors import AudiogenError, CodesError, MissingDependency, OptionError
from audiogen_core.training.signals import is_caught

ENGINES = ("local", "ray")

_PER_GPU = 4  # workers that share a GPU: reading and resampling takes longer than its part


class WorkerDied(AudiogenError):
    """A process that was encoding ended without a word."""


@dataclass(frozen=True)
class Job:
    """All a worker needs to make one shard; plain values, so that any engine can send it.

    kept  what the shard was has of files that have not changed since
    """

    folder: Path
    data: Path
    number: int
    entries: tuple[Entry, ...]
    codec: str
    codec_hash: str
    ops: str
    options: Preparation
    kept: Kept = field(default_factory=dict)


def check_engine(engine: str, workers: int | None, by_value: bool) -> None:
    """Raise OptionError or MissingDependency unless `run_jobs` can work so."""
    if workers is not None and workers < 1:
        raise OptionError(f"workers must be at least 1, got {workers}")
    if engine not in ENGINES:
        raise OptionError(f"engine must be {' or '.join(ENGINES)}, got {engine!r}")
    if engine == "ray":
        if by_value:
            raise OptionError("engine ray needs the codec's name or path, not a loaded codec")
        if find_spec("ray") is None:
            raise MissingDependency("ray", 'pip install "audiogen-core[ray]"')


def run_jobs(
    jobs: list[Job], codec: Codec, engine: str, workers: int | None, by_value: bool
) -> Iterator[int]:
    """Carry out the jobs, yielding each shard's number when it is committed.

    by_value  the codec has no name to send: all happens in this process

    Raises WorkerDied, and OSError when a shard cannot be written.
    """
    if not jobs:
        return
    gpu = "cuda" in jobs[0].ops
    count = min(workers or min(_PER_GPU if gpu else len(jobs), _cores()), len(jobs))
    if engine == "ray":
        yield from _with_ray(jobs, count, 1 / _PER_GPU if gpu else 0.0)
    elif by_value or count == 1:
        for job in jobs:
            yield _make(job, codec)
    else:
        yield from _with_pool(jobs, count)


@lru_cache(maxsize=1)
def _load(codec: str, ops: str, expected: str) -> Codec:
    """The codec, loaded once in each worker; it was fetched before, if at all."""
    from audiogen_core import codecs, hub

    loaded = codecs.load_codec(codec, ops, hub.here)
    if fingerprint(loaded.codebook_vectors()) != expected:
        raise CodesError(f"{codec}: is another codec on {gethostname()}; give all machines the same one")
    return loaded


def _cores() -> int:
    """The cores this process may use, which in a container are fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _make(job: Job, codec: Codec) -> int:
    parts: list[Part] = []
    for entry in job.entries:
        kept = _read(job.kept.get(entry.path, ()), codec.info.codebook_size)
        parts += kept or encode_track(job.folder, entry, codec, job.options)
    write_shard(job.data, job.number, parts)
    return job.number


def _read(kept: Sequence[tuple[Track, Stretch]], codebook_size: int) -> list[Part]:
    """The tracks of a file with their codes; none where one of them is not what was written."""
    with suppress(CodesError):
        for track, codes in kept:
            codes.check(track, codebook_size)
        return [(track, codes.read(0, track.frames)) for track, codes in kept]
    return []


def _work(job: Job) -> int:
    """`_make` in a process of its own."""
    return _make(job, _load(job.codec, job.ops, job.codec_hash))


def _with_pool(jobs: list[Job], count: int) -> Iterator[int]:
    context = get_context("spawn")
    with _one_thread_each(), ProcessPoolExecutor(count, context, _start_worker, (is_caught(),)) as pool:
        futures = [pool.submit(_work, job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise WorkerDied(
                "a process that was encoding died, perhaps for want of memory; run again with fewer workers, "
                "what is done stays (in a script, call encode only below: if __name__ == '__main__')"
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


def _start_worker(caught: bool) -> None:
    """Ctrl-C ends a worker at once, unless the parent catches it: then what was begun is finished.

    One whose parent was killed would wait for work for ever: it ends too.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN if caught else signal.SIG_DFL)
    if caught:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    parent = parent_process()
    if parent is not None:
        sentinel = parent.sentinel
        Thread(target=lambda: (wait([sentinel]), os._exit(1)), daemon=True).start()


def _with_ray(jobs: list[Job], count: int, gpus: float) -> Iterator[int]:
    if "RAY_ADDRESS" not in os.environ:
        # Below `uv run` Ray would make an environment of its own for workers, from a copy of the current
        # folder, and wait for ever where that has no Ray. Workers on this machine run this interpreter.
        os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    import ray

    if not ray.is_initialized():
        settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if "RAY_ADDRESS" not in os.environ:  # no cluster was named: a small one on this machine
            settings |= {"num_cpus": count, "include_dashboard": False}
        ray.init(**settings)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    dataset = ray.data.from_items([{"job": job} for job in jobs], override_num_blocks=len(jobs))
    resources: dict[str, Any] = {"num_cpus": 1, **({"num_gpus": gpus} if gpus else {})}
    for row in dataset.map(_work_row, **resources).iter_rows():
        for failure in row["errors"]:
            raise failure
        yield int(row["number"])


def _work_row(row: dict[str, Job]) -> dict[str, Any]:
    """`_work` on Ray, which would wrap what is raised: errors are handed back instead."""
    try:
        return {"number": _work(row["job"]), "errors": []}
    except (AudiogenError, OSError) as error:
        return {"number": row["job"].number, "errors": [error]}

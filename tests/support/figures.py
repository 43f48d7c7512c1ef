"""Figures that tests find, printed and written down for the tables of the documentation.

A test tells a figure; `run.py` of the benchmarks and of the reliability tests names a file in the
environment, to which figures are added as lines of JSON, and makes the tables from it. Without that they are
only printed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

VARIABLE = "AUDIOGEN_FIGURES"


def record(kind: str, **fields: Any) -> None:
    """Add a figure to the file that the environment names, if it names one."""
    path = os.environ.get(VARIABLE)
    if path:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, **fields}) + "\n")


def tell(area: str, done: str, count: int, result: str, *, promised: str) -> None:
    """A figure of reliability, for after the assertions: what does not hold is not told.

    area      the part
    done      what was done to it
    count     how often, or how much; of one thing done several times the largest stands in the table
    result    what came of it
    promised  what it was to be
    """
    print(f"\n{area}: {done}, {count:,}: {result} (promised: {promised})")
    record("reliability", area=area, done=done, count=count, result=result, promised=promised)


def compare(
    title: str,
    what: str,
    times: Mapping[str, float],
    *,
    peer: str,
    aims: Mapping[str, float] | None = None,
    audio: float | None = None,
) -> None:
    """Times of one job, seconds, beside those of a peer in the same run.

    title  of the table: which model, what size, how many threads
    what   the job
    times  of every contestant, the peer among them
    aims   contestant -> how many times as fast as the peer it is to be
    audio  seconds of audio that the job makes or reads, to tell times real time
    """
    print(f"\n{title}: {what}")
    print(f"  {peer:32} {times[peer]:9.3f} s")
    for name, seconds in times.items():
        if name == peer:
            continue
        aim = (aims or {}).get(name)
        speed = times[peer] / seconds
        more = f", {audio / seconds:.1f}x real time" if audio else ""
        print(f"  {name:32} {seconds:9.3f} s  {speed:5.2f}x {peer}{more}{f', aim {aim:g}x' if aim else ''}")
        record(
            "ratio",
            title=title,
            what=what,
            ours=name,
            seconds=seconds,
            peer=peer,
            peer_seconds=times[peer],
            ratio=speed,
            aim=aim,
            real_time=audio / seconds if audio else None,
        )


def note(title: str, text: str) -> None:
    """A line below a table: a figure that is no ratio of times."""
    print(f"  {text}")
    record("note", title=title, text=text)

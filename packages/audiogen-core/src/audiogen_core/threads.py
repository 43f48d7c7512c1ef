"""How many threads compute. A clip depends on it in its last digits: sums are split among them.

So recipes keep the number, and `replay` sets it.
"""

from __future__ import annotations

import os
from pathlib import Path

from audiogen_core.errors import OptionError

VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "OMP_NUM_THREADS")
"""By these the user says how many there are to be, in the order they count here."""

MOST = 1024
"""Libraries start as many as they are asked for, and wait for them all."""


def default() -> int:
    """What the user says by a variable of the environment; one for each physical core if by none."""
    for name in VARIABLES:
        if (count := os.environ.get(name, "")).isdecimal() and int(count):
            return int(count)
    return cores()


def cores() -> int:
    """Physical cores this process may use: threads of one core count once, and a container's quota holds."""
    if not hasattr(os, "sched_getaffinity"):  # only Linux says which
        return os.cpu_count() or 1
    siblings = set()
    for cpu in os.sched_getaffinity(0):
        listed = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        siblings.add(listed.read_text() if listed.is_file() else str(cpu))
    count = len(siblings)
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.is_file():
        limit, period = quota.read_text().split()
        if limit != "max":
            count = min(count, -(-int(limit) // int(period)))
    return max(1, count)


def use(count: int | None) -> int:
    """Let numpy's matrix products take so many threads from now on, by `default` with None. The number.

    Raises OptionError as `check` does.
    """
    from threadpoolctl import threadpool_limits

    count = default() if count is None else count
    check(count)
    threadpool_limits(count, user_api="blas")
    return count


def check(count: int) -> None:
    """Raise OptionError for a number of threads that cannot be."""
    if not 1 <= count <= MOST:
        raise OptionError(f"threads must be 1 or more, and at most {MOST}, got {count}")

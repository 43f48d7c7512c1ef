"""The learning rate over a run: warm up, stay, and fall to zero in a straight line (WSD).

Unlike a cosine, the long middle does not depend on how many steps are planned, so a run can be extended.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from audiogen_core.errors import OptionError
from audiogen_core.files import atomic_path
from audiogen_core.settings import from_mapping, read_json

NAME = "schedule.json"
_OLD_NAME = "plan.json"  # of 0.1.0, which a folder of codes uses for something else

SLACK = 0.8
"""Share of the cool-down that must fit into the time that is left; else the rate falls faster."""

RESERVE = 0.08
"""Share of a time budget kept for evaluation, samples and checkpoints."""


RECENT = 5
"""Parts of a run by which it is told how long the next of the kind takes."""


@dataclass(frozen=True)
class Plan:
    """How many steps a run takes, and how its learning rate moves.

    steps     in all
    warmup    steps at the start in which the rate rises to its full value
    cooldown  steps at the end in which it falls to zero
    """

    steps: int
    warmup: int
    cooldown: int

    def __post_init__(self) -> None:
        if self.steps < 1 or self.warmup < 0 or self.cooldown < 0:
            raise OptionError(f"a plan of {self.steps} steps, {self.warmup} up and {self.cooldown} down")
        if self.warmup + self.cooldown > self.steps:
            raise OptionError(
                f"{self.warmup} steps of warm-up and {self.cooldown} of cool-down do not fit "
                f"into {self.steps} steps"
            )

    @classmethod
    def of(cls, steps: int, warmup: float, cooldown: float) -> Plan:
        """A plan from the shares of warm-up and cool-down, both in [0, 1]."""
        if steps < 1:
            raise OptionError(f"steps must be at least 1, got {steps}")
        if not (0.0 <= warmup <= 1.0 and 0.0 <= cooldown <= 1.0 and warmup + cooldown <= 1.0):
            raise OptionError(
                f"warmup {warmup} and cooldown {cooldown} must be shares of the run, together at most 1"
            )
        down = min(steps, round(cooldown * steps))
        return cls(steps, min(steps - down, max(1, round(warmup * steps)) if warmup else 0), down)

    @classmethod
    def in_time(cls, seconds: float, step_seconds: Sequence[float], warmup: float, cooldown: float) -> Plan:
        """The plan that fills a budget of `seconds`, judged by the median of some timed steps."""
        return cls.of(max(1, int(seconds * (1 - RESERVE) / median(step_seconds))), warmup, cooldown)

    def rate(self, step: int) -> float:
        """The share of the full learning rate in the update number `step` (from 0), in [0, 1]."""
        up = (step + 1) / self.warmup if step < self.warmup else 1.0
        left = self.steps - step
        down = left / self.cooldown if self.cooldown and left < self.cooldown else 1.0
        return max(0.0, min(up, down))

    def cool_from(self, step: int, steps: int) -> Plan:
        """This plan cut short: from `step` on the rate falls from where it is to zero within `steps`, 0 for
        an end at once.
        """
        warmup = min(self.warmup, step)
        return Plan(
            step + steps, warmup, min(step + steps - warmup, round(steps / max(self.rate(step), 1e-3)))
        )

    def late(self, step: int, fit: int) -> bool:
        """Whether the plan is to end sooner, after `step` updates, as only `fit` more fit into the time."""
        left = self.steps - step
        if left <= 1:
            return False
        return fit < SLACK * left if left <= self.cooldown else fit <= self.cut(step, fit)

    def cut(self, step: int, fit: int) -> int:
        """In how many updates a plan that is late is to end.

        The cool-down is as long as the steps done so far call for: its share of the run stays what was
        planned. One that has begun falls faster.
        """
        left = self.steps - step
        if left <= self.cooldown:
            return max(1, min(fit, left))
        return max(1, round(step * self.cooldown / max(1, self.steps - self.cooldown)))


class Timing:
    """How long the parts of a run take, by the last few of each.

    now  tells the time in seconds
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.now = now
        self._took: dict[str, deque[float]] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time what is done inside, as one of the parts of that name."""
        began = self.now()
        yield
        self._took.setdefault(name, deque(maxlen=RECENT)).append(self.now() - began)

    def usual(self, *names: str) -> float:
        """Seconds that one of each of these parts takes, the median of the last; 0 of what was never done."""
        return sum(median(self._took[name]) for name in names if name in self._took)


def write_plan(run: str | Path, goal: Mapping[str, Any], plan: Plan) -> None:
    """Store a run's plan, and what was asked for when it was made (see `TrainConfig.goal`)."""
    with atomic_path(Path(run) / NAME) as temporary:
        temporary.write_text(json.dumps({"asked": dict(goal), "plan": asdict(plan)}), encoding="utf-8")


def read_plan(run: str | Path, goal: Mapping[str, Any]) -> Plan | None:
    """A run's plan; None when there is none, or when it was made for something else than is asked now."""
    path = next((Path(run) / name for name in (NAME, _OLD_NAME) if (Path(run) / name).exists()), None)
    if path is None:
        return None
    try:
        stored = read_json(path, OptionError)
    except OptionError as error:
        raise OptionError(f"{error}; delete it to plan anew") from error
    return from_mapping(Plan, stored.get("plan", {}), str(path)) if stored.get("asked") == goal else None

"""The options of drawing tokens from a language model: data only, each framework draws in its own way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from audiogen_core.errors import OptionError
from audiogen_core.values import close_fields, closed


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn from logits; the filters apply in the order of the fields.

    temperature  divides the logits; 0 takes the likeliest token (greedy). One number for all codebooks, or
                 one for each
    top_k        keep the k likeliest tokens; 0 keeps all
    top_p        keep the likeliest tokens until they hold this much probability; 0 keeps all
    min_p        keep tokens at least this likely relative to the likeliest; 0 keeps all
    seed         of the draws; None draws a seed

    Raises OptionError when a value is out of range.
    """

    temperature: float | Sequence[float] = 1.0
    top_k: int = 250
    top_p: float = 0.0
    min_p: float = 0.0
    seed: int | None = None

    def __post_init__(self) -> None:
        close_fields(self)
        for value in self.temperatures:
            if not (math.isfinite(value) and value >= 0):
                raise OptionError(f"temperature must be 0 (greedy) or more, got {value}")
        if not self.temperatures:
            raise OptionError("temperature must be a number or one for each codebook, got an empty list")
        if self.top_k < 0:
            raise OptionError(f"top_k must be 0 (all) or more, got {self.top_k}")
        for name in ("top_p", "min_p"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise OptionError(f"{name} must lie in [0, 1], 0 meaning off; got {value}")
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise OptionError(f"seed must lie in [0, 2^63), got {self.seed}")

    @property
    def temperatures(self) -> tuple[float, ...]:
        """The temperature as a tuple: of one, or of one per codebook."""
        if isinstance(self.temperature, int | float):
            return (float(self.temperature),)
        return tuple(self.temperature)

    @closed()
    def temperatures_for(self, codebooks: int) -> tuple[float, ...]:
        """One temperature for each of `codebooks`. Raises OptionError when another number was given."""
        values = self.temperatures
        if len(values) not in (1, codebooks):
            raise OptionError(f"there are {codebooks} codebooks, but {len(values)} temperatures were given")
        return values * codebooks if len(values) == 1 else values

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values, for a recipe."""
        temperature = (
            self.temperature if isinstance(self.temperature, int | float) else list(self.temperature)
        )
        return {
            "temperature": temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
            "min_p": self.min_p,
            "seed": self.seed,
        }

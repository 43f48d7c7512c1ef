"""What the trainings of the demo models share: optimisers, their rate, the loop, its log and checkpoints."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from audiogen_core.errors import OptionError
from audiogen_core.files import atomic_path

LOG_EVERY = 20  # steps


class Run(ABC):
    """A training in progress: its network, optimisers and step. A recipe adds data, and what it draws from.

    settings  of the recipe, with a table `training`
    """

    FREE: ClassVar[frozenset[str]] = frozenset()
    """Settings that a run which is taken up again may have changed."""

    def __init__(self, settings: Any, network: nn.Module, optimizers: list[torch.optim.Optimizer]) -> None:
        self.settings, self.network, self.optimizers = settings, network, optimizers
        self.step = 0

    @abstractmethod
    def advance(self) -> dict[str, float]:
        """One step; returns facts for the log, "loss" among them."""

    @abstractmethod
    def evaluate(self) -> dict[str, Any]:
        """Facts about held-out music."""

    def fixed(self, settings: dict[str, Any]) -> dict[str, Any]:
        """What of some settings a checkpoint must share with the run: all but the free ones of tables."""
        return {
            name: {key: each for key, each in value.items() if key not in self.FREE}
            if isinstance(value, dict)
            else value
            for name, value in settings.items()
        }

    def state(self) -> dict[str, Any]:
        """All that going on needs."""
        return {
            "settings": self.settings.to_dict(),
            "step": self.step,
            "network": self.network.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }

    def take(self, state: dict[str, Any]) -> None:
        """Stand where a state says. Raises OptionError when it is one of other settings."""
        if self.fixed(state["settings"]) != self.fixed(self.settings.to_dict()):
            raise OptionError("the checkpoint is one of other settings; choose another folder")
        self.network.load_state_dict(state["network"])
        for optimizer, kept in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        self.step = state["step"]

    def update(self, rate: float) -> float:
        """End a step: move along the gradients, which are then gone; returns their norm before clipping."""
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.training.clip)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * group.get("share", 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return float(norm)

    def go_on(self, goal: int, checkpoint: Path, log: Path, **first: Any) -> Path:
        """Train to a step, from the checkpoint if it is there, and save that; returns its path.

        log  a line of JSON every LOG_EVERY steps and where the network was judged; `first` before them

        Raises OptionError when the checkpoint is one of other settings.
        """
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        begin, training = time.monotonic(), self.settings.training
        if checkpoint.is_file():
            try:
                self.take(torch.load(checkpoint, weights_only=True))
            except OptionError as error:
                raise OptionError(f"{checkpoint}: {error}") from error
        with log.open("a", encoding="utf-8") as file:
            print(json.dumps(_rounded({"step": self.step, **first})), file=file, flush=True)
            while self.step < goal:
                facts: dict[str, Any] = {**self.advance(), "step": self.step}
                last = self.step == goal
                judged = last or self.step % training.evaluate_every == 0
                if judged:
                    facts |= self.evaluate()
                if judged or self.step % LOG_EVERY == 0:
                    facts["seconds"] = time.monotonic() - begin
                    print(json.dumps(_rounded(facts)), file=file, flush=True)
                if last or self.step % training.checkpoint_every == 0:
                    with atomic_path(checkpoint) as temporary:
                        torch.save(self.state(), temporary)
        return checkpoint


def optimizers(
    matrices: Iterable[nn.Parameter],
    groups: Sequence[dict[str, Any]],
    *,
    betas: tuple[float, float],
    weight_decay: float,
    momentum: float = 0.95,
    dtype: torch.dtype = torch.float32,
) -> list[torch.optim.Optimizer]:
    """Muon for matrices of layers, AdamW for groups of everything else.

    groups  of AdamW's parameters; "share" in one is its part of the learning rate, 1 when absent
    dtype   in which Muon computes
    """
    muon = Muon(list(matrices), momentum=momentum, weight_decay=weight_decay, dtype=dtype)
    return [muon, torch.optim.AdamW(list(groups), betas=betas)]


class Muon(torch.optim.Optimizer):
    """Muon (kellerjordan.github.io/posts/muon), moving matrices as far as AdamW would at the same rate.

    That of torch computes in bfloat16, which takes longer than all the rest on a CPU without instructions
    for it; here in the dtype that is asked for, matrices of one shape at a time.
    """

    def __init__(
        self, matrices: list[nn.Parameter], *, momentum: float, weight_decay: float, dtype: torch.dtype
    ) -> None:
        super().__init__(matrices, {"lr": 0.0, "momentum": momentum, "weight_decay": weight_decay})
        self.dtype = dtype

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            alike: dict[torch.Size, list[nn.Parameter]] = {}
            for matrix in group["params"]:
                if matrix.grad is not None:
                    alike.setdefault(matrix.shape, []).append(matrix)
            for shape, matrices in alike.items():
                moves = []
                for matrix in matrices:
                    state = self.state[matrix]
                    mean = state.setdefault("mean", torch.zeros_like(matrix))
                    mean.lerp_(matrix.grad, 1 - group["momentum"])
                    moves.append(matrix.grad.lerp(mean, group["momentum"]))
                far = group["lr"] * 0.2 * max(shape) ** 0.5
                drawn = _orthogonal(torch.stack(moves).to(self.dtype))
                for matrix, move in zip(matrices, drawn, strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"]).add_(move, alpha=-far)


def _orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """Matrices (n, rows, columns) with singular values drawn to 1, by five steps of Newton and Schulz."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        squares = x @ x.mT
        x = 3.4445 * x + (2.0315 * squares @ squares - 4.775 * squares) @ x
    return x.mT if tall else x


def share_of_rate(step: int, steps: int, *, warmup: int, decay_steps: float, least: float = 0.0) -> float:
    """A linear warm-up, a plateau, and a linear fall over the last steps, to `least`."""
    up = min(1.0, (step + 1) / warmup)
    return up * max(least, min(1.0, (steps - step) / decay_steps))


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return round(value, 4) if isinstance(value, float) else value

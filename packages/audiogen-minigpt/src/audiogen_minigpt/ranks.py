"""Training with several processes: who is who, sums over all, and how a model is spread.

Processes are started by torchrun, which sets RANK, LOCAL_RANK and WORLD_SIZE; without them there is one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from audiogen_core.errors import OptionError
from audiogen_minigpt.model import GPT


@dataclass(frozen=True)
class Ranks:
    """This process among all.

    rank   its number, from 0
    world  how many there are
    local  its number on this machine
    """

    rank: int = 0
    world: int = 1
    local: int = 0

    @classmethod
    def from_environment(cls) -> Ranks:
        """From the variables torchrun sets. Raises OptionError when they are not numbers."""
        try:
            rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
            return cls(rank, world, int(os.environ.get("LOCAL_RANK", str(rank))))
        except ValueError as error:
            raise OptionError(
                "RANK, WORLD_SIZE and LOCAL_RANK must be numbers, as torchrun sets them"
            ) from error

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum of a tensor over all processes, in place."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def any(self, *flags: bool, device: torch.device) -> list[bool]:
        """For each flag whether it is set in any process."""
        if self.world == 1:  # nothing to ask: a value on a GPU would be waited for
            return list(flags)
        counts = self.sum(torch.tensor(flags, dtype=torch.float32, device=device))
        return [count > 0 for count in counts.tolist()]

    def agree(self, number: int, device: torch.device) -> int:
        """The first process's number, in every process."""
        value = torch.tensor(number, device=device)
        if self.world > 1:
            dist.broadcast(value, 0)
        return int(value)


@contextmanager
def joined(ranks: Ranks, device: torch.device) -> Iterator[None]:
    """Join the other processes for the length of a with block: NCCL on CUDA, gloo elsewhere."""
    if ranks.world == 1 or dist.is_initialized():
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
        dist.init_process_group("nccl", device_id=device)
    else:
        dist.init_process_group("gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


class LossModule(nn.Module):
    """A model as one call from tokens to summed losses, which is what gets compiled and spread."""

    def __init__(self, model: GPT) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor, targets: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S, Q) each -> the summed cross entropy in nats (K,) and the number of targets (K,)."""
        return self.model.loss_sums(inputs, targets, mask)


def spread(module: LossModule, ranks: Ranks, *, shard: bool) -> nn.Module:
    """The module over all processes: replicated (DDP), or with its weights shared out (FSDP2).

    Either way the gradient of the mean over processes arrives in every one.
    """
    if shard:
        from torch.distributed.fsdp import fully_shard

        for block in module.model.h:
            fully_shard(block)
        fully_shard(module)
        return module
    if ranks.world == 1:
        return module
    return nn.parallel.DistributedDataParallel(module)


@contextmanager
def accumulating(module: nn.Module, last: bool) -> Iterator[None]:
    """A context for one of several backward passes: only the last exchanges gradients."""
    context: AbstractContextManager[None] = nullcontext()
    set_sync = getattr(module, "set_requires_gradient_sync", None)  # FSDP2
    if callable(set_sync):
        set_sync(last)
    elif isinstance(module, nn.parallel.DistributedDataParallel) and not last:
        context = module.no_sync()
    with context:
        yield


def settle(module: nn.Module) -> None:
    """Share weights out again that a forward pass without a backward one left whole (FSDP2)."""
    reshard = getattr(module, "reshard", None)
    if callable(reshard):
        reshard()


def whole(tensor: Tensor) -> Tensor:
    """A tensor's full value on the CPU, put together from all processes where it is shared out.

    Every process must call this for the same tensors in the same order.
    """
    if dist.is_initialized():  # the import takes a second
        from torch.distributed.tensor import DTensor

        tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return tensor.detach().cpu()


def put(target: Tensor, value: Tensor) -> None:
    """Write a full value into a tensor, each process its own part where it is shared out."""
    with torch.no_grad():
        target.copy_(like(target, value))


def like(target: Tensor, value: Tensor) -> Tensor:
    """A full value on the device, in the type and spread over processes as `target` is."""
    value = value.to(device=target.device, dtype=target.dtype)
    if not dist.is_initialized():
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(target, DTensor):
        return value
    return distribute_tensor(value, target.device_mesh, target.placements)

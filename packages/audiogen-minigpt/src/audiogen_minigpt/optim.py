"""The optimizers: AdamW, or Muon for the matrices of the blocks with AdamW for the rest."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from audiogen_core.errors import WeightsError
from audiogen_minigpt.config import check_choice
from audiogen_minigpt.ranks import like, whole

KINDS = ("adamw", "muon")
BETAS = (0.9, 0.95)


class Optimizer:
    """One or two torch optimizers behind one face; state goes in and out by parameter name.

    kind          "adamw", or "muon" (Keller Jordan's, as in torch.optim): matrices of the blocks are moved
                  along their orthogonalised momentum, scaled so that AdamW's learning rate fits
    lr            the full learning rate
    weight_decay  on parameters of two axes and more
    """

    def __init__(self, model: nn.Module, kind: str, lr: float, weight_decay: float) -> None:
        check_choice("optimizer", kind, KINDS)
        self.names = dict(model.named_parameters())
        self.lr = lr
        hidden = {
            name: p
            for name, p in self.names.items()
            if kind == "muon" and name.startswith("h.") and p.ndim == 2
        }
        rest = [p for name, p in self.names.items() if name not in hidden]
        groups = [
            {"params": [p for p in rest if p.ndim >= 2], "weight_decay": weight_decay},
            {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.parts: list[torch.optim.Optimizer] = [
            torch.optim.AdamW([group for group in groups if group["params"]], lr=lr, betas=BETAS, fused=True)
        ]
        if hidden:
            muon = torch.optim.Muon(
                hidden.values(), lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
            )
            self.parts.append(muon)

    def set_rate(self, share: float) -> None:
        """Use this share of the full learning rate."""
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = self.lr * share

    def step(self) -> None:
        """Move the parameters by their gradients."""
        for part in self.parts:
            part.step()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, Tensor]:
        """The state as full tensors on the CPU, named "<parameter>/<what>". Empty before the first step."""
        return {
            f"{name}/{key}": whole(value)
            for name, parameter in self.names.items()
            for part in self.parts
            for key, value in sorted(part.state.get(parameter, {}).items())
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what `tensors` gave. Raises WeightsError when it is another optimizer's."""
        state: dict[str, dict[str, Tensor]] = {}
        for full_name, value in tensors.items():
            name, _, key = full_name.rpartition("/")
            state.setdefault(name, {})[key] = value
        unknown = sorted(set(state) - set(self.names))
        absent = sorted(set(self.names) - set(state)) if state else []
        if unknown or absent:
            raise WeightsError(
                f"the optimizer state does not fit the model: {len(absent)} parameters have none "
                f"({', '.join(absent[:3])}), {len(unknown)} are unknown ({', '.join(unknown[:3])})"
            )
        for part in self.parts:
            wanted = (
                {"momentum_buffer"}
                if isinstance(part, torch.optim.Muon)
                else {"exp_avg", "exp_avg_sq", "step"}
            )
            mine = {id(p) for group in part.param_groups for p in group["params"]}
            part.state.clear()
            for name, entries in state.items():
                parameter = self.names[name]
                if id(parameter) not in mine:
                    continue
                if set(entries) != wanted:
                    raise WeightsError(f"the optimizer state of {name} is that of another optimizer")
                part.state[
                    parameter
                ] = {  # AdamW's count of steps is a number, whatever the parameter's spread
                    key: value.to(parameter.device) if value.ndim == 0 else like(parameter, value).clone()
                    for key, value in entries.items()
                }

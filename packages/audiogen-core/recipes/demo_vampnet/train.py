"""Train a network of the demo VampNet: `python train.py coarse --corpus CORPUS --out RUN`, then `fine`.

A run that was stopped goes on from its last checkpoint, to the same result as without the stop. One thread is
used: results repeat on machines with the same arithmetic.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data import SIZE, Batch, Corpus, Excerpts
from network import fresh
from settings import Settings, Training
from torch import Tensor
from torch.nn import functional

from audiogen_core import codecs
from audiogen_core.errors import OptionError
from audiogen_onnx.exporter.model import VampNet

sys.path.insert(0, str(Path(__file__).parents[1] / "demo_music"))
import training

SHARES = (0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
"""Of an excerpt's codes that are masked, when it is judged."""


class Run(training.Run):
    """A training in progress: network, optimisers, data and where it stands."""

    FREE = frozenset({"steps", "decay_steps"})

    def __init__(self, name: str, settings: Settings, corpus: Path) -> None:
        self.name, self.part = name, settings.part(name)
        train, held = Corpus.read(corpus, "train"), Corpus.read(corpus, "held")
        self.excerpts = Excerpts(train, self.part, settings.masks, settings.seed)
        self.held = Excerpts(held, self.part, settings.masks, settings.seed)
        network = fresh(self.part, codecs.load_codec("demo").codebook_vectors(), settings.seed)
        super().__init__(settings, network, _optimizers(network, settings.training))

    def advance(self) -> dict[str, float]:
        """One step; returns the loss in nats."""
        wanted, part = self.settings.training, self.part
        loss = self._nats(self.excerpts.batch()).mean()
        torch.autograd.backward(loss)
        full = training.share_of_rate(
            self.step, part.steps, warmup=wanted.warmup, decay_steps=part.decay_steps
        )
        self.update(wanted.learning_rate * full)
        return {"loss": float(loss.detach())}

    @torch.no_grad()
    def evaluate(self) -> dict[str, Any]:
        """Held-out nats, and the share of codes guessed at first, by the share of codes that are masked."""
        facts: dict[str, Any] = {"nats": {}, "top1": {}}
        for share in SHARES:
            batch = self.held.held(self.settings.training.held_out, share)
            logits, truth = self._masked(batch)
            facts["nats"][str(share)] = float(functional.cross_entropy(logits, truth))
            facts["top1"][str(share)] = float((logits.argmax(-1) == truth).float().mean())
        return facts

    def unigram(self) -> float:
        """Held-out nats of how often a code is met in training, whatever stands around it."""
        held, nats = self.held.held(self.settings.training.held_out, 1.0).codes.numpy(), []
        for book in range(self.part.conditioning, self.part.codebooks):
            counts = np.bincount(self.excerpts.corpus.codes[:, book].ravel(), minlength=SIZE) + 1
            nats.append(float(-np.log(counts / counts.sum())[held[:, book]].mean()))
        return float(np.mean(nats))

    def _masked(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits (M, N) and codes (M,) at the masked places."""
        enabled = self.settings.training.precision == "bfloat16"
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            logits = self.network(batch.seen)
        rows = slice(self.part.conditioning, None)
        masked = batch.masked[:, rows]
        return logits[masked].float(), batch.codes[:, rows][masked]

    def _nats(self, batch: Batch) -> Tensor:
        return functional.cross_entropy(*self._masked(batch), reduction="none")

    def fixed(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Of the two networks' settings only those of this one."""
        own = {key: settings[key] for key in ("seed", "masks", "training", self.name)}
        return super().fixed(own)

    def state(self) -> dict[str, Any]:
        return {**super().state(), "name": self.name, "draws": self.excerpts.draws.bit_generator.state}

    def take(self, state: dict[str, Any]) -> None:
        if state["name"] != self.name:
            raise OptionError(f"a checkpoint of the {state['name']} network, not of the {self.name} one")
        super().take(state)
        self.excerpts.draws.bit_generator.state = state["draws"]


def train(name: str, settings: Settings, corpus: Path, out: Path) -> Path:
    """Train to the end; returns the last checkpoint, NAME.pt. Progress goes to NAME.jsonl."""
    run = Run(name, settings, corpus)
    return run.go_on(run.part.steps, out / f"{name}.pt", out / f"{name}.jsonl", unigram=run.unigram())


def _optimizers(network: VampNet, wanted: Training) -> list[torch.optim.Optimizer]:
    named = dict(network.named_parameters())
    matrices = {name for name, values in named.items() if name.startswith("layers.") and values.dim() == 2}
    bias = named.pop("position_bias.weight")
    rest = [values for name, values in named.items() if name not in matrices]
    groups: list[dict[str, Any]] = [
        {"params": [bias], "weight_decay": 0.0, "share": wanted.bias_rate},
        {"params": [values for values in rest if values.dim() > 1], "weight_decay": wanted.weight_decay},
        {"params": [values for values in rest if values.dim() <= 1], "weight_decay": 0.0},
    ]
    return training.optimizers(
        [values for name, values in named.items() if name in matrices],
        groups,
        betas=wanted.betas,
        weight_decay=wanted.weight_decay,
        momentum=wanted.momentum,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", choices=("coarse", "fine"))
    parser.add_argument("--config", type=Path, default=Path(__file__).with_name("config.toml"))
    parser.add_argument("--corpus", type=Path, required=True, help="what recipes/demo_music/make.py wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints and the log")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(train(arguments.network, Settings.read(arguments.config), arguments.corpus, arguments.out))


if __name__ == "__main__":
    main()

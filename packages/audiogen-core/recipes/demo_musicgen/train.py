"""Train the demo MusicGen: `python train.py --corpus CORPUS --out RUN`.

A run that was stopped goes on from its last checkpoint, to the same result as without the stop. Results
repeat with the same number of threads on machines with the same arithmetic.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from beats import keep_time
from data import Batch, Corpus, Excerpts
from network import Network
from settings import Settings, Training
from start import begin
from torch import Tensor, nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parents[1] / "demo_music"))
import training


class Run(training.Run):
    """A training in progress: network, optimisers, data and where it stands."""

    FREE = frozenset({"steps", "decay_steps", "forgotten", "checkpoint_every", "evaluate_every", "held_out"})

    def __init__(self, settings: Settings, corpus: Path, start: Path | None = None) -> None:
        self.excerpts = Excerpts(Corpus.read(corpus, "train"), settings, settings.seed)
        held = Excerpts(Corpus.read(corpus, "held"), settings, settings.seed)
        self.held = held.held(settings.training.held_out)
        self.opened = held.held(4 * settings.training.held_out, settings.openings.frames)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            network = Network(settings, held.words.get_vocab_size())
            if start is None:
                keep_time(network, held.words)
            else:
                begin(network, start, held.words)
        super().__init__(settings, network, _optimizers(network, settings.training))

    def advance(self) -> dict[str, float]:
        """One step; returns the loss of the excerpts in nats."""
        wanted, openings = self.settings.training, self.settings.openings
        self.network.train()
        loss = self._loss(self.excerpts.openings())
        torch.autograd.backward(loss)
        facts = {"opened": float(loss.detach())}
        if self.step % openings.every == 0:
            loss = self._loss(self.excerpts.batch())
            torch.autograd.backward(loss)
            facts["loss"] = float(loss.detach())
        full = training.share_of_rate(
            self.step, wanted.steps, warmup=wanted.warmup, decay_steps=wanted.decay_steps
        )
        self.update(wanted.learning_rate * full)
        return facts

    def _loss(self, batch: Batch) -> Tensor:
        """Nats, weighed by frame and by codebook."""
        books = torch.tensor(self.settings.data.book_weights)
        weights = batch.weights[:, None] * books[:, None]
        return (self._nats(batch) * weights).sum() / weights.sum()

    @torch.no_grad()
    def evaluate(self) -> dict[str, Any]:
        """Held-out nats by codebook, with the captions and without; of the first also where notes begin."""
        self.network.eval()
        facts = {}
        for name, told in (("told", 1.0), ("untold", 0.0)):
            each = [_row(self.held, i, told) for i in range(len(self.held.codes))]
            rows = torch.cat([self._nats(row) for row in each])  # (B, K, W)
            nats = rows.mean(dim=(0, 2))
            facts[name] = nats.tolist()
            facts[f"{name}, mean"] = float(nats.mean())
            beats = self.held.weights > 1
            facts[f"{name}, beats"] = float(rows[:, 0][beats].mean())
            first = [self._nats(_row(self.opened, i, told)).mean() for i in range(len(self.opened.codes))]
            facts[f"{name}, openings"] = float(torch.stack(first).mean())
        return facts

    def unigram(self) -> list[float]:
        """Held-out nats by codebook of how often a code is met in training, whatever came before."""
        facts = []
        for k in range(self.settings.model.codebooks):
            counts = np.bincount(
                self.excerpts.corpus.codes[:, k].ravel(), minlength=self.settings.model.codebook_size
            )
            share = (counts + 1) / (counts + 1).sum()
            facts.append(float(-np.log(share[self.held.codes[:, k].numpy()]).mean()))
        return facts

    def _nats(self, batch: Batch) -> Tensor:
        """(B, K, W)"""
        enabled = self.settings.training.precision == "bfloat16"
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            logits = self.network(batch.heard, batch.ids, batch.mask, batch.told)
        flat = functional.cross_entropy(logits.flatten(0, 2), batch.codes.flatten(), reduction="none")
        return flat.view(batch.codes.shape)

    def state(self) -> dict[str, Any]:
        return {**super().state(), "draws": self.excerpts.draws.bit_generator.state}

    def take(self, state: dict[str, Any]) -> None:
        super().take(state)
        self.excerpts.draws.bit_generator.state = state["draws"]


def train(
    settings: Settings, corpus: Path, out: Path, until: int | None = None, start: Path | None = None
) -> Path:
    """Train to the end, or until a step; returns the last checkpoint. Progress goes to `log.jsonl`.

    start  a folder that `export.py` wrote, to begin with what it has learned
    """
    run, steps = Run(settings, corpus, start), settings.training.steps
    goal = steps if until is None else min(until, steps)
    return run.go_on(goal, out / "checkpoint.pt", out / "log.jsonl", unigram=run.unigram())


def _optimizers(network: Network, wanted: Training) -> list[torch.optim.Optimizer]:
    parts: dict[str, list[nn.Parameter]] = {"matrices": [], "text": [], "tables": [], "heads": [], "rest": []}
    for name, parameter in network.named_parameters():
        parts[_part(name, parameter)].append(parameter)
    rates = {"text": wanted.text_rate, "tables": wanted.table_rate, "heads": wanted.head_rate, "rest": 1.0}
    groups = [
        {"params": parts[name], "weight_decay": wanted.weight_decay * (name == "heads"), "share": rate}
        for name, rate in rates.items()
    ]
    return training.optimizers(
        parts["matrices"],
        groups,
        betas=wanted.betas,
        weight_decay=wanted.weight_decay,
        momentum=wanted.momentum,
    )


def _part(name: str, parameter: nn.Parameter) -> str:
    """Muon's matrices, or what of AdamW's a parameter is."""
    if ".layers." in name and parameter.dim() == 2:
        return "matrices"
    if name.startswith("text_encoder."):
        return "text"
    return "tables" if "embed_tokens" in name else "heads" if "lm_heads" in name else "rest"


def _row(batch: Batch, index: int, told: float) -> Batch:
    row = slice(index, index + 1)
    return Batch(
        batch.codes[row],
        batch.heard[row],
        batch.ids[row],
        batch.mask[row],
        torch.full((1,), told),
        batch.weights[row],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=Path(__file__).with_name("config.toml"))
    parser.add_argument("--corpus", type=Path, required=True, help="what recipes/demo_music/make.py wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints and the log")
    parser.add_argument("--start", type=Path, help="folder of an exported model to begin with")
    parser.add_argument("--until", type=int, help="stop at this step, to be taken up again")
    parser.add_argument("--threads", type=int, default=1, help="two take two thirds of the time of one")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(
        train(
            Settings.read(arguments.config), arguments.corpus, arguments.out, arguments.until, arguments.start
        )
    )


if __name__ == "__main__":
    main()

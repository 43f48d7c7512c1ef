"""Train the demo MusicGen: `python train.py --corpus CORPUS --out RUN`.

A run that was stopped goes on from its last checkpoint, to the same result as without the stop. Results
repeat with the same number of threads on machines with the same arithmetic.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data import Batch, Corpus, Excerpts
from network import Network
from settings import Settings, Training
from torch import Tensor
from torch.nn import functional

from audiogen_core.errors import OptionError
from audiogen_core.files import atomic_path

FREE = (
    "steps",
    "checkpoint_every",
    "evaluate_every",
    "held_out",
)  # settings of [training] that a run taken up again may have changed


class Run:
    """A training in progress: network, optimisers, data and where it stands."""

    def __init__(self, settings: Settings, corpus: Path) -> None:
        self.settings = settings
        self.excerpts = Excerpts(Corpus.read(corpus, "train"), settings, settings.seed)
        held = Excerpts(Corpus.read(corpus, "held"), settings, settings.seed)
        self.held = held.held(settings.training.held_out)
        self.opened = held.held(len(held.corpus.codes), settings.openings.frames)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.network = Network(settings, held.words.get_vocab_size())
        self.optimizers = _optimizers(self.network, settings.training)
        self.step = 0

    def advance(self) -> float:
        """One step; returns the loss of the excerpts in nats."""
        training, openings = self.settings.training, self.settings.openings
        self.network.train()
        loss = openings.weight * self._nats(self.excerpts.openings()).mean()
        torch.autograd.backward(loss)
        batch = self.excerpts.batch()
        share = batch.weights[:, None] / (batch.weights.sum() * batch.codes.shape[1])
        loss = (self._nats(batch) * share).sum()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), training.clip)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(self.step, training) * group.get("share", 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return float(loss.detach())

    @torch.no_grad()
    def evaluate(self) -> dict[str, Any]:
        """Held-out nats by codebook, with the captions and without; of the first also where notes begin."""
        self.network.eval()
        facts = {}
        for name, told in (("told", 1.0), ("untold", 0.0)):
            each = [_row(self.held, i, told) for i in range(len(self.held.codes))]
            rows = torch.cat([self._nats(row) for row in each])  # (B, K, W)
            nats = rows.mean(dim=(0, 2))
            facts[name] = [round(float(value), 4) for value in nats]
            facts[f"{name}, mean"] = round(float(nats.mean()), 4)
            beats = self.held.weights > 1
            facts[f"{name}, beats"] = round(float(rows[:, 0][beats].mean()), 4)
            first = [self._nats(_row(self.opened, i, told)).mean() for i in range(len(self.opened.codes))]
            facts[f"{name}, openings"] = round(float(torch.stack(first).mean()), 4)
        return facts

    def unigram(self) -> list[float]:
        """Held-out nats by codebook of how often a code is met in training, whatever came before."""
        facts = []
        for k in range(self.settings.model.codebooks):
            counts = np.bincount(
                self.excerpts.corpus.codes[:, k].ravel(), minlength=self.settings.model.codebook_size
            )
            share = (counts + 1) / (counts + 1).sum()
            facts.append(round(float(-np.log(share[self.held.codes[:, k].numpy()]).mean()), 4))
        return facts

    def _nats(self, batch: Batch) -> Tensor:
        """(B, K, W)"""
        enabled = self.settings.training.precision == "bfloat16"
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            logits = self.network(batch.heard, batch.ids, batch.mask, batch.told)
        return functional.cross_entropy(logits.permute(0, 3, 1, 2), batch.codes, reduction="none")

    def save(self, path: Path) -> None:
        state = {
            "network": self.network.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "draws": self.excerpts.draws.bit_generator.state,
            "step": self.step,
            "settings": self.settings.to_dict(),
        }
        with atomic_path(path) as temporary:
            torch.save(state, temporary)

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint. Raises OptionError when it is one of other settings."""
        state: dict[str, Any] = torch.load(path, weights_only=True)
        if _fixed(state["settings"]) != _fixed(self.settings.to_dict()):
            raise OptionError(f"{path}: a checkpoint of other settings; choose another folder")
        self.network.load_state_dict(state["network"])
        for optimizer, kept in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        self.excerpts.draws.bit_generator.state = state["draws"]
        self.step = state["step"]


def learning_rate(step: int, training: Training) -> float:
    """A linear warm-up, a plateau, and a linear fall over the last steps."""
    up = min(1.0, (step + 1) / training.warmup)
    down = min(1.0, (training.steps - step) / training.decay_steps)
    return training.learning_rate * up * down


def train(settings: Settings, corpus: Path, out: Path, until: int | None = None) -> Path:
    """Train to the end, or until a step; returns the last checkpoint. Progress goes to `log.jsonl`."""
    out.mkdir(parents=True, exist_ok=True)
    checkpoint, training, begin = out / "checkpoint.pt", settings.training, time.monotonic()
    run = Run(settings, corpus)
    if checkpoint.is_file():
        run.restore(checkpoint)
    with (out / "log.jsonl").open("a", encoding="utf-8") as log:
        print(json.dumps({"step": run.step, "unigram": run.unigram()}), file=log, flush=True)
        goal = training.steps if until is None else min(until, training.steps)
        while run.step < goal:
            facts: dict[str, Any] = {"loss": round(run.advance(), 4), "step": run.step}
            last = run.step == goal
            if last or run.step % training.evaluate_every == 0:
                facts |= run.evaluate()
            if last or run.step % 20 == 0:
                facts["seconds"] = round(time.monotonic() - begin, 1)
                print(json.dumps(facts), file=log, flush=True)
            if last or run.step % training.checkpoint_every == 0:
                run.save(checkpoint)
    return checkpoint


def _optimizers(network: Network, training: Training) -> list[torch.optim.Optimizer]:
    """Muon (kellerjordan.github.io/posts/muon) for the matrices of the layers, AdamW for the rest."""
    named = dict(network.named_parameters())
    matrices = [name for name, p in named.items() if ".layers." in name and p.dim() == 2]
    text = [p for name, p in named.items() if name.startswith("text_encoder.")]
    rest = [
        p for name, p in named.items() if name not in set(matrices) and not name.startswith("text_encoder.")
    ]
    groups = [
        {"params": [p for p in rest if p.dim() > 1], "weight_decay": training.weight_decay},
        {"params": [p for p in rest if p.dim() <= 1], "weight_decay": 0.0},
        {"params": text, "weight_decay": 0.0, "share": training.text_rate},
    ]
    return [
        torch.optim.Muon(
            [named[name] for name in matrices],
            momentum=training.momentum,
            weight_decay=training.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(groups, betas=training.betas),
    ]


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


def _fixed(settings: dict[str, Any]) -> dict[str, Any]:
    training = {name: value for name, value in settings["training"].items() if name not in FREE}
    return {**settings, "training": training}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=Path(__file__).with_name("config.toml"))
    parser.add_argument("--corpus", type=Path, required=True, help="what recipes/demo_music/make.py wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints and the log")
    parser.add_argument("--until", type=int, help="stop at this step, to be taken up again")
    parser.add_argument("--threads", type=int, default=1, help="two take two thirds of the time of one")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(train(Settings.read(arguments.config), arguments.corpus, arguments.out, arguments.until))


if __name__ == "__main__":
    main()

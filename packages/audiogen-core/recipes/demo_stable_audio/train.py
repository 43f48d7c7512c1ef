"""Train the demo model: `python train.py --corpus CORPUS --out RUN [--config config.toml]`.

Rectified flow: from clean latents with a share of noise in [0, 1] to the velocity between them. A training
that was stopped goes on from its last checkpoint. One thread is used.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from data import Batch, Corpus, Windows
from network import Network
from settings import Settings
from torch import Tensor, nn

from audiogen_core.files import atomic_path

LEVELS = (0.1, 0.3, 0.5, 0.7, 0.85, 0.95)  # of noise, at which it is judged


class Run:
    """A training in progress: network and its running mean, optimisers, data, and where it stands."""

    def __init__(self, settings: Settings, corpus: Corpus, held: Corpus) -> None:
        self.settings = settings
        torch.manual_seed(settings.seed)
        self.windows = Windows(corpus, settings, settings.seed)
        self.network = Network(settings, self.windows.words.get_vocab_size())
        self.mean = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
        self.optimizers = optimizers(self.network, settings)
        self.draws = torch.Generator().manual_seed(settings.seed)
        self.held = Windows(held, settings, 0).held(settings.training.held_out)
        self.step = 0

    def advance(self) -> dict[str, float]:
        """One step; returns its loss and the norm of the gradient."""
        training = self.settings.training
        rate = learning_rate(self.step, self.settings)
        batch = self.windows.batch()
        t = noise_levels(len(batch.told), self.settings, self.draws)
        loss = self.loss(batch, t, torch.randn(batch.latents.shape, generator=self.draws)).mean()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), training.clip)
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        self._average(min(training.average, self.step / (self.step + 10)))
        return {"loss": float(loss.detach()), "norm": float(norm), "rate": rate}

    def loss(self, batch: Batch, t: Tensor, noise: Tensor) -> Tensor:
        """Mean squared error of the velocity, (B,); frames that are given count little."""
        level = t[:, None, None]
        x = (1 - level) * batch.latents + level * noise
        with torch.autocast("cpu", torch.bfloat16, enabled=self.settings.training.precision == "bfloat16"):
            conditioning = self.network.condition(batch.ids, batch.mask, batch.seconds, batch.told)
            velocity = self.network(x, t, batch.beside, conditioning)
        error = (velocity.float() - (noise - batch.latents)).square().mean(-1)
        weight = 1 - (1 - self.settings.data.known_weight) * batch.known
        return (error * weight).sum(1) / weight.sum(1)

    @torch.no_grad()
    def evaluate(self) -> dict[str, Any]:
        """The loss of the running mean at some noise levels on windows that are held out."""
        kept = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.network.load_state_dict(self.mean)
        draws = torch.Generator().manual_seed(1)
        noise = torch.randn(self.held.latents.shape, generator=draws)
        losses = []
        for level in LEVELS:
            t = torch.full((len(noise),), level)
            losses.append(float(self.loss(self.held, t, noise).mean()))
        self.network.load_state_dict(kept)
        return {"held": sum(losses) / len(losses), "levels": dict(zip(LEVELS, losses, strict=True))}

    @torch.no_grad()
    def _average(self, decay: float) -> None:
        for name, value in self.network.state_dict().items():
            self.mean[name].lerp_(value, 1 - decay)

    def state(self) -> dict[str, Any]:
        return {
            "settings": self.settings.to_dict(),
            "step": self.step,
            "network": self.network.state_dict(),
            "mean": self.mean,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "draws": self.draws.get_state(),
            "windows": self.windows.draws.bit_generator.state,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.step, self.mean = state["step"], state["mean"]
        self.network.load_state_dict(state["network"])
        for optimizer, kept in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        self.draws.set_state(state["draws"])
        self.windows.draws.bit_generator.state = state["windows"]


def optimizers(network: Network, settings: Settings) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al. 2024) for the matrices of the layers, AdamW for everything else."""
    training = settings.training
    inner, outer, plain = [], [], []
    for name, value in network.named_parameters():
        if not value.requires_grad:
            continue
        if value.ndim == 2 and ".layers." in name:
            inner.append(value)
        else:
            (outer if value.ndim > 1 else plain).append(value)
    muon = torch.optim.Muon(
        inner, lr=training.learning_rate, weight_decay=training.weight_decay, adjust_lr_fn="match_rms_adamw"
    )
    groups = [
        {"params": outer, "weight_decay": training.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return [muon, torch.optim.AdamW(groups, lr=training.learning_rate, betas=training.betas)]


def noise_levels(count: int, settings: Settings, draws: torch.Generator) -> Tensor:
    """Levels (B,) whose logits are normal, spread evenly over the distribution within a batch."""
    offset = torch.rand((), generator=draws)
    share = ((torch.arange(count) + offset) / count).clamp(1e-4, 1 - 1e-4)
    return torch.sigmoid(settings.noise.location + settings.noise.scale * torch.special.ndtri(share))


def learning_rate(step: int, settings: Settings) -> float:
    """Warm-up, a constant stretch, and a straight fall."""
    training = settings.training
    rise = min(1.0, (step + 1) / training.warmup)
    left = (training.steps - step) / (training.steps * (1 - training.decay_from))
    return training.learning_rate * rise * max(training.last_rate, min(1.0, left))


def train(settings: Settings, corpus: Path, folder: Path) -> Path:
    """Train to the end; returns the path of the last checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint, log = folder / "checkpoint.pt", folder / "log.jsonl"
    run = Run(settings, Corpus.read(corpus, "train"), Corpus.read(corpus, "held"))
    if checkpoint.is_file():
        run.restore(torch.load(checkpoint, weights_only=True))
    training, began, first = settings.training, time.monotonic(), run.step
    total = math.nan
    while run.step < training.steps:
        terms = run.advance()
        total = terms["loss"] if math.isnan(total) else 0.95 * total + 0.05 * terms["loss"]
        last = run.step == training.steps
        if run.step % 20 == 0 or last:
            took = (time.monotonic() - began) / (run.step - first)
            write(log, {"step": run.step, "loss": round(total, 4), **terms, "seconds_per_step": took})
        if run.step % training.evaluate_every == 0 or last:
            write(log, {"step": run.step, **run.evaluate()})
        if run.step % training.checkpoint_every == 0 or last:
            with atomic_path(checkpoint) as temporary:
                torch.save(run.state(), temporary)
    return checkpoint


def write(log: Path, facts: dict[str, Any]) -> None:
    rounded = {key: round(value, 5) if isinstance(value, float) else value for key, value in facts.items()}
    line = json.dumps(rounded)
    print(line, flush=True)
    with log.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=Path(__file__).with_name("config.toml"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(train(Settings.read(arguments.config), arguments.corpus, arguments.out))


if __name__ == "__main__":
    main()

"""Train the demo model: `python train.py --corpus CORPUS --out RUN [--start FOLDER]`.

Rectified flow: from clean latents with a share of noise in [0, 1] to the velocity between them. A training
that was stopped goes on from its last checkpoint. One thread is used.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from beats import keep_time
from data import Batch, Corpus, Windows
from network import Network
from settings import Settings
from start import begin
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "demo_music"))
import training

LEVELS = (0.1, 0.3, 0.5, 0.7, 0.85, 0.95)  # of noise, at which it is judged


class Run(training.Run):
    """A training in progress: network and its running mean, optimisers, data, and where it stands."""

    FREE = frozenset({"steps", "decay_from", "last_rate", "compile", "checkpoint_every", "evaluate_every"})

    def __init__(self, settings: Settings, corpus: Corpus, held: Corpus, start: Path | None = None) -> None:
        torch.manual_seed(settings.seed)
        self.windows = Windows(corpus, settings, settings.seed)
        network = Network(settings, self.windows.words.get_vocab_size())
        if start:
            begin(network, start, self.windows.words, Windows(corpus, settings, settings.seed).batch())
        elif settings.model.clock:
            keep_time(network, self.windows.words)
        if settings.training.compile:
            for layer in network.dit.transformer.layers:
                layer.compile()
        self.mean = {name: value.detach().clone() for name, value in network.state_dict().items()}
        self.draws = torch.Generator().manual_seed(settings.seed)
        self.held = Windows(held, settings, 0).held(settings.training.held_out)
        super().__init__(settings, network, _optimizers(network, settings))

    def advance(self) -> dict[str, float]:
        """One step; returns its loss, the norm of the gradient and the learning rate."""
        wanted = self.settings.training
        batch = self.windows.batch()
        t = noise_levels(len(batch.told), self.settings, self.draws)
        loss = self.loss(batch, t, torch.randn(batch.latents.shape, generator=self.draws)).mean()
        torch.autograd.backward(loss)
        rate = wanted.learning_rate * training.share_of_rate(
            self.step,
            wanted.steps,
            warmup=wanted.warmup,
            decay_steps=wanted.steps * (1 - wanted.decay_from),
            least=wanted.last_rate,
        )
        norm = self.update(rate)
        self._average(min(wanted.average, self.step / (self.step + 10)))
        return {"loss": float(loss.detach()), "norm": norm, "rate": rate}

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
        drawn = {"draws": self.draws.get_state(), "windows": self.windows.draws.bit_generator.state}
        return {**super().state(), "mean": self.mean, **drawn}

    def take(self, state: dict[str, Any]) -> None:
        super().take(state)
        self.mean = state["mean"]
        self.draws.set_state(state["draws"])
        self.windows.draws.bit_generator.state = state["windows"]


def _optimizers(network: Network, settings: Settings) -> list[torch.optim.Optimizer]:
    wanted = settings.training
    inner, outer, plain = [], [], []
    for name, value in network.named_parameters():
        if not value.requires_grad:
            continue
        if value.ndim == 2 and ".layers." in name:
            inner.append(value)
        else:
            (outer if value.ndim > 1 else plain).append(value)
    groups = [
        {"params": outer, "weight_decay": wanted.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return training.optimizers(
        inner,
        groups,
        betas=wanted.betas,
        weight_decay=wanted.weight_decay,
        dtype=getattr(torch, wanted.precision),
    )


def noise_levels(count: int, settings: Settings, draws: torch.Generator) -> Tensor:
    """Levels (B,) whose logits are normal, spread evenly over the distribution within a batch."""
    offset = torch.rand((), generator=draws)
    share = ((torch.arange(count) + offset) / count).clamp(1e-4, 1 - 1e-4)
    return torch.sigmoid(settings.noise.location + settings.noise.scale * torch.special.ndtri(share))


def train(settings: Settings, corpus: Path, folder: Path, start: Path | None = None) -> Path:
    """Train to the end; returns the path of the last checkpoint. Progress goes to `log.jsonl`."""
    run = Run(settings, Corpus.read(corpus, "train"), Corpus.read(corpus, "held"), start)
    return run.go_on(settings.training.steps, folder / "checkpoint.pt", folder / "log.jsonl")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=Path(__file__).with_name("config.toml"))
    parser.add_argument("--start", type=Path, help="a folder of export.py to begin with")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(train(Settings.read(arguments.config), arguments.corpus, arguments.out, arguments.start))


if __name__ == "__main__":
    main()

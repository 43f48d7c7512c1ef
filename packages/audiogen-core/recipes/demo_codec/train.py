"""Train the demo codec: `python train.py --config config.toml --out FOLDER`.

A run that was stopped goes on from its last checkpoint, to the same result as without the stop. One thread
is used: results repeat on machines with the same arithmetic, and a second one gains little.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from data import Excerpts, watched
from losses import distances, si_sdr
from network import Network, balance
from quantizer import Quantizer
from settings import Phase, Settings
from torch import Tensor, nn

from audiogen_core.errors import OptionError
from audiogen_core.files import atomic_path

PRECISIONS = {"bfloat16": True, "float32": False}
PARTS = ("all", "decoder")


class Run:
    """A training in progress: network, quantiser, optimiser, data and where it stands."""

    phase: Phase
    excerpts: Excerpts
    optimizer: torch.optim.AdamW

    def __init__(self, settings: Settings) -> None:
        if settings.training.precision not in PRECISIONS:
            raise OptionError(f"precision must be one of {', '.join(PRECISIONS)}")
        self.settings = settings
        self.draws = torch.Generator()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.network = Network(settings.codec)
            self.first_draws = torch.get_rng_state()
        self.quantizer = Quantizer(settings.codec, settings.quantizer, self.draws)
        self.step = 0
        self._enter_phase()
        balance(self.network, self.excerpts.batch(24))

    def advance(self) -> dict[str, float]:
        """One step; returns the terms of the loss."""
        step, data = self.step, self.settings.data
        if step == self.settings.refit.step:
            self._refit()
        if step and self.settings.phase(step) is not self.phase:
            self._enter_phase()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, self.settings)
        if step == self.settings.training.plain_steps:
            self._start_quantizer()
        loss, terms = self._loss(self.excerpts.batch())
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.training.clip)
        self.optimizer.step()
        if step % data.steps_per_piece == data.steps_per_piece - 1:
            self.excerpts.renew()
        self.step += 1
        return {"loss": float(loss.detach()), **terms, "norm": float(norm)}

    def _enter_phase(self) -> None:
        before = self.phase.part if self.step else ""
        self.phase = self.settings.phase(self.step)
        self.excerpts = Excerpts(self.settings, self.phase)
        self.draws.set_state(self.first_draws)
        self._choose_part(before)

    def _choose_part(self, before: str) -> None:
        """What learns from here on; a new part gets a new optimiser."""
        if self.phase.part not in PARTS:
            raise OptionError(f"a phase trains one of {', '.join(PARTS)}, got {self.phase.part!r}")
        whole = self.phase.part == "all"
        self.network.encoder.requires_grad_(whole)
        self.quantizer.train(whole)
        if self.phase.part != before:
            learning = self.network if whole else self.network.decoder
            self.optimizer = _optimizer(learning, self.settings)

    def _loss(self, x: Tensor) -> tuple[Tensor, dict[str, float]]:
        training, weights = self.settings.training, self.settings.loss
        with self._autocast(self.phase.part == "all"), torch.set_grad_enabled(self.phase.part == "all"):
            latents = self.network.encode(x)
        latents, commitment = latents.float(), torch.zeros(())
        if self.step >= training.plain_steps:
            count = training.codebook_counts[self.step % len(training.codebook_counts)]
            latents, commitment, _ = self.quantizer(latents, count)
        with self._autocast(True):
            y = self.network.decode(latents)
        mel, spectrum, waveform = distances(y, x)
        loss = self.phase.mel * mel + weights.spectrum * spectrum + weights.waveform * waveform
        loss = loss + weights.commitment * commitment
        terms = {"mel": mel, "spectrum": spectrum, "waveform": waveform, "commitment": commitment}
        return loss, {name: float(value.detach()) for name, value in terms.items()}

    def _autocast(self, wanted: bool) -> torch.autocast:
        enabled = wanted and PRECISIONS[self.settings.training.precision]
        return torch.autocast("cpu", torch.bfloat16, enabled=enabled)

    @torch.no_grad()
    def _start_quantizer(self) -> None:
        batches = [self.excerpts.batch(24) for _ in range(self.settings.quantizer.start_batches)]
        latents = [self.network.encode(x).reshape(-1, self.settings.codec.dimension) for x in batches]
        self.quantizer.start(torch.cat(latents).float())

    @torch.no_grad()
    def _refit(self) -> None:
        """New codebooks for the encoder as it is now, from many excerpts."""
        source = self.settings.refit
        excerpts = Excerpts(self.settings, source)
        latents = []
        for _ in range(source.batches):
            latents.append(self.network.encode(excerpts.batch(24)).reshape(-1, self.settings.codec.dimension))
            excerpts.renew()
        self.draws.manual_seed(source.seed)
        self.quantizer.refit(torch.cat(latents), source.rounds)

    @torch.no_grad()
    def evaluate(self, clips: dict[str, Tensor]) -> dict[str, float]:
        """Distances on held-out clips, by codebooks (0: not quantised) and by kind of clip."""
        self.quantizer.eval()
        most = self.settings.codec.codebooks
        counts = (0, 2, 4, most) if self.step > self.settings.training.plain_steps else (0,)
        facts: dict[str, float] = {}
        for kind, x in clips.items():
            for count in counts if kind == "on" else counts[2:3]:
                latents = self.network.encode(x)
                if count:
                    latents, _, indices = self.quantizer(latents, min(count, most))
                    if kind == "on":
                        facts["entropy of codebook 0"] = entropy(
                            indices[0], self.settings.codec.codebook_size
                        )
                y = self.network.decode(latents)
                mel, spectrum, _ = distances(y, x)
                name = f"{kind}, {count} codebooks"
                values = {"mel": mel, "spectrum": spectrum, "si-sdr": si_sdr(y, x).mean()}
                facts |= {f"{name}: {key}": round(float(value), 4) for key, value in values.items()}
        self.quantizer.train(self.phase.part == "all")
        return facts

    def save(self, path: Path) -> None:
        state = {
            "network": self.network.state_dict(),
            "quantizer": self.quantizer.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "excerpts": self.excerpts.state(),
            "draws": self.draws.get_state(),
            "step": self.step,
            "settings": self.settings.to_dict(),
        }
        with atomic_path(path) as temporary:
            torch.save(state, temporary)

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint. Raises OptionError when it is one of other settings."""
        state: dict[str, Any] = torch.load(path, weights_only=True)
        if state["settings"] != self.settings.to_dict():
            raise OptionError(f"{path}: a checkpoint of other settings; choose another folder")
        self.network.load_state_dict(state["network"])
        self.quantizer.load_state_dict(state["quantizer"])
        self.step = state["step"]
        self.phase = self.settings.phase(self.step - 1)
        self._choose_part("")
        self.optimizer.load_state_dict(state["optimizer"])
        self.excerpts.restore(state["excerpts"])
        self.draws.set_state(state["draws"])


def learning_rate(step: int, settings: Settings) -> float:
    """Linear warm-up times a cosine down to a small share."""
    phase, training = settings.phase(step), settings.training
    done = step - phase.since
    warm = min(1, (done + 1) / training.warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * done / phase.schedule))
    return phase.learning_rate * warm * (cosine * (1 - training.last_rate) + training.last_rate)


def entropy(indices: Tensor, size: int) -> float:
    """Nats of the distribution of indices."""
    share = torch.bincount(indices, minlength=size).float()
    share = share[share > 0] / share.sum()
    return float(-(share * share.log()).sum())


def train(settings: Settings, out: Path) -> Path:
    """Train to the end; returns the last checkpoint. Progress goes to `log.jsonl`."""
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / "checkpoint.pt"
    run = Run(settings)
    if checkpoint.is_file():
        run.restore(checkpoint)
    training, clips, begin = settings.training, watched(), time.monotonic()
    with (out / "log.jsonl").open("a", encoding="utf-8") as log:
        while run.step < settings.steps:
            facts: dict[str, Any] = {"step": run.step + 1, **run.advance()}
            last = run.step == settings.steps
            judge = last or run.step % training.evaluate_every == 0
            if judge:
                facts |= run.evaluate(clips)
            if judge or run.step % 100 == 0:
                facts["seconds"] = round(time.monotonic() - begin, 1)
                print(json.dumps(facts), file=log, flush=True)
            if last or run.step % training.checkpoint_every == 0:
                run.save(checkpoint)
    return checkpoint


def _optimizer(learning: nn.Module, settings: Settings) -> torch.optim.AdamW:
    training, parameters = settings.training, list(learning.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": training.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, betas=training.betas)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=Path(__file__).with_name("config.toml"))
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints and the log")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(train(Settings.read(arguments.config), arguments.out))


if __name__ == "__main__":
    main()

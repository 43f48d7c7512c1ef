"""Train a network of the demo VampNet: `python train.py coarse --corpus CORPUS --out RUN`, then `fine`.

A run that was stopped goes on from its last checkpoint, to the same result as without the stop. One thread is
used: results repeat on machines with the same arithmetic.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data import SIZE, Batch, Corpus, Excerpts
from network import fresh
from settings import Part, Settings, Training
from torch import Tensor
from torch.nn import functional

from audiogen_core import codecs
from audiogen_core.errors import OptionError
from audiogen_core.files import atomic_path
from audiogen_onnx.vampnet.model import VampNet

FREE = ("steps", "decay_steps")  # settings of a part that a run taken up again may have changed
SHARES = (0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
"""Of an excerpt's codes that are masked, when it is judged."""


class Run:
    """A training in progress: network, optimisers, data and where it stands."""

    def __init__(self, name: str, settings: Settings, corpus: Path) -> None:
        self.name, self.settings, self.part = name, settings, settings.part(name)
        train, held = Corpus.read(corpus, "train"), Corpus.read(corpus, "held")
        self.excerpts = Excerpts(train, self.part, settings.masks, settings.seed)
        self.held = Excerpts(held, self.part, settings.masks, settings.seed)
        self.network = fresh(self.part, codecs.load_codec("demo").codebook_vectors(), settings.seed)
        self.optimizers = _optimizers(self.network, settings.training)
        self.step = 0

    def advance(self) -> float:
        """One step; returns the loss in nats."""
        training = self.settings.training
        loss = self._nats(self.excerpts.batch()).mean()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), training.clip)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(self.step, self.part, training) * group.get("faster", 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return float(loss.detach())

    @torch.no_grad()
    def evaluate(self) -> dict[str, Any]:
        """Held-out nats, and the share of codes guessed at first, by the share of codes that are masked."""
        facts: dict[str, Any] = {"nats": {}, "top1": {}}
        for share in SHARES:
            batch = self.held.held(self.settings.training.held_out, share)
            logits, truth = self._masked(batch)
            facts["nats"][str(share)] = round(float(functional.cross_entropy(logits, truth)), 4)
            facts["top1"][str(share)] = round(float((logits.argmax(-1) == truth).float().mean()), 4)
        return facts

    def unigram(self) -> float:
        """Held-out nats of how often a code is met in training, whatever stands around it."""
        held, nats = self.held.held(self.settings.training.held_out, 1.0).codes.numpy(), []
        for book in range(self.part.conditioning, self.part.codebooks):
            counts = np.bincount(self.excerpts.corpus.codes[:, book].ravel(), minlength=SIZE) + 1
            nats.append(float(-np.log(counts / counts.sum())[held[:, book]].mean()))
        return round(float(np.mean(nats)), 4)

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

    def save(self, path: Path) -> None:
        state = {
            "name": self.name,
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
        if _fixed(state["settings"], state["name"]) != _fixed(self.settings.to_dict(), self.name):
            raise OptionError(f"{path}: a checkpoint of other settings; choose another folder")
        self.network.load_state_dict(state["network"])
        for optimizer, kept in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        self.excerpts.draws.bit_generator.state = state["draws"]
        self.step = state["step"]


def learning_rate(step: int, part: Part, training: Training) -> float:
    """A linear warm-up, a plateau, and a linear fall over the last steps."""
    up = min(1.0, (step + 1) / training.warmup)
    down = min(1.0, (part.steps - step) / part.decay_steps)
    return training.learning_rate * up * down


def train(name: str, settings: Settings, corpus: Path, out: Path) -> Path:
    """Train to the end; returns the last checkpoint, NAME.pt. Progress goes to NAME.jsonl."""
    out.mkdir(parents=True, exist_ok=True)
    checkpoint, training, begin = out / f"{name}.pt", settings.training, time.monotonic()
    run = Run(name, settings, corpus)
    if checkpoint.is_file():
        run.restore(checkpoint)
    with (out / f"{name}.jsonl").open("a", encoding="utf-8") as log:
        print(json.dumps({"step": run.step, "unigram": run.unigram()}), file=log, flush=True)
        while run.step < run.part.steps:
            facts: dict[str, Any] = {"loss": round(run.advance(), 4), "step": run.step}
            last = run.step == run.part.steps
            if last or run.step % training.evaluate_every == 0:
                facts |= run.evaluate()
            if last or run.step % 20 == 0:
                facts["seconds"] = round(time.monotonic() - begin, 1)
                print(json.dumps(facts), file=log, flush=True)
            if last or run.step % training.checkpoint_every == 0:
                run.save(checkpoint)
    return checkpoint


def _optimizers(network: VampNet, training: Training) -> list[torch.optim.Optimizer]:
    """Muon (kellerjordan.github.io/posts/muon) for the matrices of the layers, AdamW for the rest."""
    named = dict(network.named_parameters())
    matrices = {name for name, values in named.items() if name.startswith("layers.") and values.dim() == 2}
    bias = named.pop("position_bias.weight")
    rest = [values for name, values in named.items() if name not in matrices]
    groups: list[dict[str, Any]] = [
        {"params": [bias], "weight_decay": 0.0, "faster": training.bias_rate},
        {"params": [values for values in rest if values.dim() > 1], "weight_decay": training.weight_decay},
        {"params": [values for values in rest if values.dim() <= 1], "weight_decay": 0.0},
    ]
    return [
        torch.optim.Muon(
            [values for name, values in named.items() if name in matrices],
            momentum=training.momentum,
            weight_decay=training.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(groups, betas=training.betas),
    ]


def _fixed(settings: dict[str, Any], name: str) -> dict[str, Any]:
    """What a run of one network depends on."""
    part = {key: value for key, value in settings[name].items() if key not in FREE}
    return {"name": name, name: part, **{key: settings[key] for key in ("seed", "masks", "training")}}


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

"""Tuning a MusicGen on a folder of clips: a LoRA beside its frozen transformer, and a folder of it that peft,
transformers and `--lora` load.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten, tree_map
from numpy.typing import NDArray

from audiogen_core.audio import Audio
from audiogen_core.errors import OptionError
from audiogen_core.formats.adapters import write_peft
from audiogen_core.hub import asking
from audiogen_core.models import Fetch
from audiogen_core.musicgen.files import Places
from audiogen_core.options import described
from audiogen_core.progress import OnStep
from audiogen_core.training import tuning
from audiogen_core.training.checkpoints import Checkpoint, Table
from audiogen_core.training.clips import Clip, turn
from audiogen_core.training.errors import Diverged
from audiogen_core.training.tuning import Notify, OnRecord, OnStage, Tuned, card, known
from audiogen_core.values import closed
from audiogen_mlx import blas, cpu
from audiogen_mlx.catalog import MUSICGEN
from audiogen_mlx.musicgen import tune_data
from audiogen_mlx.musicgen.adapted import Adapted, Batch, Factors, batch, fresh, targeted
from audiogen_mlx.musicgen.load import Parts, find_files
from audiogen_mlx.musicgen.tune_options import RATE, Tuning

BETAS = (0.9, 0.999)


@closed()
def tune(
    asked: Tuning,
    run: str | Path,
    *,
    fetch: Fetch | None = None,
    on_stage: OnStage | None = None,
    on_record: OnRecord | None = None,
    notify: Notify | None = None,
) -> Tuned:
    """Tune a MusicGen, or go on with it; see `audiogen_core.training.tuning.tune`.

    fetch  how models of the catalogue are fetched

    What is learned is a folder of peft.
    """
    fetched = fetch or asking(unlisted=asked.unlisted)

    def begin(on_step: OnStep) -> Learner:
        return Learner(asked, Path(run), fetched, on_step)

    cpu.keep_memory(True)
    try:
        return tuning.tune(
            asked,
            run,
            begin,
            program="audiogen-mlx tune",
            on_stage=on_stage,
            on_record=on_record,
            notify=notify,
        )
    finally:
        cpu.keep_memory(False)


class Learner(tuning.Learner):
    """A MusicGen that learns."""

    def __init__(self, asked: Tuning, run: Path, fetch: Fetch, on_step: OnStep) -> None:
        """Open the model and encode the clips. Raises as `tune` does."""
        blas.set_threads(asked.threads)
        places = Places(asked.t5, asked.tokenizer, asked.codec, asked.mert, fetch)
        files = find_files(asked.model, places, unlisted=asked.unlisted)
        if asked.seconds > files.config.window_seconds:
            raise OptionError(
                f"seconds must be at most {files.config.window_seconds:g}, as the model was trained; "
                f"got {asked.seconds:g}",
                "seconds",
            )
        modules = targeted(files.config, asked.targets)
        parts = Parts(files, dtype=asked.dtype)
        self.asked, self.fetch = asked, fetch
        self.base, self.licence = known(MUSICGEN, str(asked.model))
        self.data, self.texts = tune_data.prepare(parts, asked.folder, run, asked.seconds, on_step)
        self.kept: list[Clip] = []
        if asked.keep is not None:
            kept, texts = tune_data.prepare(parts, asked.keep, run, asked.seconds, on_step)
            self.kept, self.texts = [*kept.train, *kept.held_out], self.texts | texts
            self.data = replace(self.data, identity=f"{self.data.identity} {kept.identity}")
        self.config, self.network = parts.config, parts.transformer
        del parts  # the text encoder and the codec have done their work
        gc.collect()
        mx.clear_cache()
        self.alpha = asked.alpha or float(asked.rank)
        scales = dict.fromkeys(modules, self.alpha / asked.rank)
        self.model = Adapted(self.network, scales, checkpoint=asked.checkpoint)
        self.factors = fresh(self.network, modules, asked.rank, asked.seed, dora=asked.dora)
        self.lr = asked.lr or RATE / self.config.width
        self.optimiser = optim.AdamW(
            self.lr, betas=list(BETAS), weight_decay=asked.weight_decay, bias_correction=True
        )
        self.optimiser.init(self.factors)

    def update(self, step: int, share: float) -> dict[str, float]:
        loss, gradients = self._gradients(step)
        clipped, norm = optim.clip_grad_norm(gradients, self.asked.clip or math.inf)  # type: ignore[no-untyped-call]
        self.optimiser.learning_rate = rate = self.lr * share
        self.factors = self.optimiser.apply_gradients(clipped if self.asked.clip else gradients, self.factors)
        mx.eval(self.factors, self.optimiser.state, norm)
        if not math.isfinite(loss):
            raise Diverged(f"the loss of step {step} is not finite; begin anew with a lower --lr")
        return {"loss": loss, "norm": float(norm.item()), "learning_rate": rate}

    def rehearse(self, step: int) -> None:
        mx.eval(self._gradients(step))

    def _gradients(self, step: int) -> tuple[float, Factors]:
        """The mean loss of an update's clips, and its gradients; which clips follows from seed and step."""
        asked, clips = self.asked, self.data.train
        rng = np.random.default_rng([asked.seed, step])
        total: Any = None
        for part in range(asked.accumulate):
            first = (step * asked.accumulate + part) * asked.batch
            places = range(first, first + asked.batch)
            shown = [self.kept if self.kept and rng.random() < asked.keep_share else clips for _ in places]
            chosen = [of[turn(place, len(of), asked.seed)] for of, place in zip(shown, places, strict=True)]
            # Where clips are kept, only those lose their captions: what the model makes of no words stays,
            # and guidance, which leads away from that, does not lead away from what is learned.
            dropped = rng.random(len(chosen)) < asked.text_dropout
            told = [
                not drop or bool(self.kept and of is clips) for drop, of in zip(dropped, shown, strict=True)
            ]
            excerpts = [
                int(rng.integers(1 << 30)) if each and rng.random() >= asked.clip_dropout else None
                for each in told
            ]
            made = self.model.gradients(self.factors, self._batch(chosen, told, excerpts))
            total = made if total is None else tree_map(lambda a, b: a + b, total, made)
            mx.eval(total)
        loss, gradients = tree_map(lambda each: each / asked.accumulate, total)
        return loss, gradients

    def _batch(self, clips: Sequence[Clip], told: list[bool], excerpts: list[int | None]) -> Batch:
        """Clips as a batch: which captions are told, and by which excerpts melodies or styles are shown."""
        before = [tune_data.ahead(self.network, *each) for each in zip(clips, excerpts, strict=True)]
        return batch(
            self.config,
            [clip.codes for clip in clips],
            [self.texts[clip.caption] for clip in clips],
            told,
            [each for each in before if each is not None] or None,
        )

    def judge(self, clips: Sequence[Clip]) -> float:
        losses = [self.model.loss(self.factors, self._batch([clip], [True], [0])) for clip in clips]
        return float(np.mean(losses))

    def tables(self) -> dict[str, Table]:
        state = {module: self.optimiser.state[module] for module in self.factors}
        return {"factors": _flat(self.factors), "moments": _flat(state)}

    def restore(self, last: Checkpoint) -> None:
        table, moments = last.table("factors"), last.table("moments")
        self.factors = {
            module: {leaf: mx.array(table[f"{module}.{leaf}"]) for leaf in own}
            for module, own in self.factors.items()
        }
        state = self.optimiser.state
        for module, own in self.factors.items():
            state[module] = {
                leaf: {each: mx.array(moments[f"{module}.{leaf}.{each}"]) for each in ("m", "v")}
                for leaf in own
            }
        state["step"] = mx.array(last.step, mx.uint64)

    def write(self, folder: Path, facts: Mapping[str, Any]) -> Path:
        return write_peft(
            folder,
            _flat(self.factors),
            rank=self.asked.rank,
            alpha=self.alpha,
            base=self.base,
            card=card(self.base, facts, library_name="peft"),
            dora=self.asked.dora,
        )

    def sample(self, adapter: Path | None) -> Audio:
        """A clip of the words of one that says something to it. The model is opened anew for it."""
        from audiogen_mlx.musicgen.generate import MusicGen

        asked, merged = self.asked, () if adapter is None else (str(adapter),)
        opened = {
            each.name: getattr(asked, each.name) for each in described(type(asked)) if each.name in _OPENING
        }
        music = MusicGen.load(**opened, dtype=asked.dtype, fetch=self.fetch, lora=merged)
        caption = self.data.shown.caption
        sound = music.generate(caption, seconds=asked.seconds, seed=asked.seed, normalize=True)
        del music
        gc.collect()
        mx.clear_cache()
        return sound

    def facts(self) -> dict[str, Any]:
        asked = self.asked
        return {
            "length of a clip": f"up to {asked.seconds:g} s",
            "beside": ", ".join(asked.targets),
            "rank, alpha": f"{asked.rank}, {self.alpha:g}" + ", DoRA" * asked.dora,
            "learning rate": f"{self.lr:.2g}",
            "of what it is to keep": self.kept and f"{len(self.kept)} clips, {asked.keep_share:.0%} of all",
        }


_OPENING = ("model", "t5", "tokenizer", "codec", "mert", "threads", "unlisted")


def _flat(tree: Any) -> dict[str, NDArray[Any]]:
    pairs: Any = tree_flatten(tree)
    return {name: np.array(value) for name, value in pairs}

"""Tuning a VampNet on a folder of clips: low-rank updates beside both networks, as the original trains.

Each update is one of the coarse network and one of the fine one, which have nothing to do with one another
but the clips: the fine one sees parts of these. What comes of it are two files that the original loads.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiogen_core.audio import Audio
from audiogen_core.codes import Codes
from audiogen_core.errors import OptionError
from audiogen_core.files import atomic_folder
from audiogen_core.hub import asking
from audiogen_core.lora import PAIR
from audiogen_core.models import Fetch
from audiogen_core.ops.torch_ops import TorchOps
from audiogen_core.progress import OnStep
from audiogen_core.threads import use as use_threads
from audiogen_core.training import clips, tuning
from audiogen_core.training.checkpoints import Checkpoint, Table
from audiogen_core.training.clips import Clip, turn
from audiogen_core.training.errors import Diverged
from audiogen_core.training.tuning import Notify, OnRecord, OnStage, Tuned, card, known
from audiogen_core.values import closed
from audiogen_onnx.catalog import CATALOG
from audiogen_onnx.exporter.adapted import adapted, cost, factors, masked, noam, save
from audiogen_onnx.exporter.base import Base, Part
from audiogen_onnx.exporter.export import checkpoints
from audiogen_onnx.exporter.model import VampNet, runner
from audiogen_onnx.vampnet.generate import Vampnet
from audiogen_onnx.vampnet.loudness import loudness
from audiogen_onnx.vampnet.network import WIDEST, Network
from audiogen_onnx.vampnet.sound import gain_in
from audiogen_onnx.vampnet.tune_options import Tuning

SHARES = (1 / 8, 3 / 8, 5 / 8, 7 / 8)
"""r of the masks by which a clip is judged: from nearly all masked to little."""


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
    """Tune a VampNet, or go on with it; see `audiogen_core.training.tuning.tune`.

    fetch  how models of the catalogue are fetched

    What is learned are a coarse/lora.pth and a c2f/lora.pth.
    """
    fetched = fetch or asking(unlisted=asked.unlisted)

    def begin(on_step: OnStep) -> Learner:
        return Learner(asked, Path(run), fetched, on_step)

    with torch.random.fork_rng():
        return tuning.tune(
            asked,
            run,
            begin,
            program="audiogen-onnx tune",
            captioned=False,
            on_stage=on_stage,
            on_record=on_record,
            notify=notify,
        )


@dataclass(frozen=True, eq=False)
class Pupil:
    """One of the two networks, with what is learned beside it.

    name       coarse or fine
    frames     that it was trained on
    optimiser  None where it is not to learn
    """

    name: str
    net: VampNet
    frames: int
    optimiser: torch.optim.AdamW | None

    @property
    def learned(self) -> dict[str, torch.nn.Parameter]:
        """What is learned, by the names of a lora.pth."""
        return dict(factors(self.net))

    def network(self) -> Network:
        """It as the sampling has it."""
        config = self.net.config
        return Network(
            self.name,
            runner(self.net),
            config.codebooks,
            config.conditioning_codebooks,
            config.codebook_size,
            self.frames,
        )


class Learner(tuning.Learner):
    """A VampNet that learns."""

    def __init__(self, asked: Tuning, run: Path, fetch: Fetch, on_step: OnStep) -> None:
        """Open the model and encode the clips. Raises as `tune` does."""
        torch.set_num_threads(use_threads(asked.threads))
        auto = "cuda" if torch.cuda.is_available() else "cpu"
        ops = TorchOps(auto if asked.device == "auto" else asked.device)
        folder = checkpoints(asked.model, fetch, unlisted=asked.unlisted)
        base = Base.open(folder, fetch=fetch, ops=f"torch:{ops.device}")
        seconds = asked.seconds or base.coarse.seconds
        if seconds > base.coarse.seconds:
            raise OptionError(
                f"seconds must be at most {base.coarse.seconds:g}, as the model was trained; got {seconds:g}",
                "seconds",
            )
        self.asked, self.codec, self.device = asked, base.codec, ops.device
        self.seconds, self.loudness, self.defaults = seconds, base.loudness, base.defaults
        self.base, self.licence = known(CATALOG, str(asked.model))
        rows = base.fine.checkpoint.config.codebooks

        def encode(clip: Audio) -> clips.Made:
            peak = float(np.abs(clip.samples).max())
            gain = np.float32(gain_in(loudness(clip), peak, self.loudness))
            codes = self.codec.encode(Audio(clip.samples * gain, clip.sample_rate))
            return codes.values[:rows], None

        self.data = clips.prepare(
            asked.folder, run, seconds, base.codec.info, encode, on_step, captioned=False
        )
        self.pupils = [self._pupil("coarse", base.coarse), self._pupil("fine", base.fine)]

    def _pupil(self, name: str, part: Part) -> Pupil:
        asked, rate = self.asked, self.codec.info.frame_rate
        net = adapted(part.checkpoint, part.updates, dropout=asked.dropout, seed=asked.seed).to(self.device)
        optimiser = None
        if asked.networks in ("both", name):
            optimiser = torch.optim.AdamW(
                [value for _, value in factors(net)], lr=0.0, weight_decay=asked.weight_decay
            )
        return Pupil(name, net, min(math.ceil(part.seconds * rate), WIDEST), optimiser)

    # Learning

    def update(self, step: int, share: float) -> dict[str, float]:
        facts: dict[str, float] = {}
        for pupil in self._learning():
            loss = self._gradients(pupil, step)
            limit = self.asked.clip or math.inf
            norm = float(torch.nn.utils.clip_grad_norm_(pupil.learned.values(), limit))
            if not math.isfinite(loss) or not math.isfinite(norm):
                raise Diverged(
                    f"the {pupil.name} network: the loss of step {step} is not finite; begin anew with a "
                    "lower --lr"
                )
            optimiser = pupil.optimiser
            assert optimiser is not None
            rate = share * (self.asked.lr or noam(step + 1, pupil.net.config.width))
            optimiser.param_groups[0]["lr"] = rate
            optimiser.step()
            optimiser.zero_grad()
            facts |= {f"{pupil.name}_loss": loss, f"{pupil.name}_norm": norm, "learning_rate": rate}
        for what in ("loss", "norm"):
            facts[what] = float(np.mean([facts[f"{pupil.name}_{what}"] for pupil in self._learning()]))
        return facts

    def rehearse(self, step: int) -> None:
        for pupil in self._learning():
            self._gradients(pupil, step)
            pupil.net.zero_grad()

    def _learning(self) -> list[Pupil]:
        return [pupil for pupil in self.pupils if pupil.optimiser is not None]

    def _gradients(self, pupil: Pupil, step: int) -> float:
        """The loss of an update's clips, whose gradients are added up.

        Clips, excerpts, masks and dropout follow from seed and step. Clips that are not equally long go
        through the network apart; the loss is the mean over all their masked codes, as if they did not.
        """
        asked, config, all_clips = self.asked, pupil.net.config, self.data.train
        count, seeds = asked.batch * asked.accumulate, (asked.seed, step, pupil.name)
        rng = np.random.default_rng(_mixed("excerpts", *seeds))
        generator = torch.Generator().manual_seed(_mixed("masks", *seeds))
        torch.manual_seed(_mixed("dropout", *seeds))
        shares = _shares(_mixed("shares", asked.seed, pupil.name), step * count, count)
        drawn = []
        for place in range(count):
            codes = all_clips[turn(step * count + place, len(all_clips), asked.seed)].codes
            excerpt = _excerpt(codes, pupil, rng.random())
            mask = masked(shares[place : place + 1], excerpt, config.conditioning_codebooks, generator)
            drawn.append((excerpt, mask))
        total = max(1, sum(int(mask.sum()) for _, mask in drawn))
        loss = 0.0
        for seen, mask in _equally_long(drawn, asked.batch):
            part = cost(pupil.net, seen.to(self.device), mask.to(self.device)) / total
            part.backward()  # type: ignore[no-untyped-call]
            loss += float(part.detach())
        return loss

    def judge(self, clips: Sequence[Clip]) -> float:
        losses = []
        for pupil in self._learning():
            total, count = 0.0, 0
            with self._resting(pupil), torch.inference_mode():
                for index, clip in enumerate(clips):
                    codes = _excerpt(clip.codes, pupil, 0.5).expand(len(SHARES), -1, -1)
                    generator = torch.Generator().manual_seed(index)
                    given = pupil.net.config.conditioning_codebooks
                    mask = masked(torch.tensor(SHARES), codes, given, generator)
                    total += float(
                        cost(pupil.net, codes.to(self.device), mask.to(self.device), smoothing=0.0)
                    )
                    count += int(mask.sum())
            losses.append(total / max(1, count))
        return float(np.mean(losses))

    @contextmanager
    def _resting(self, pupil: Pupil) -> Iterator[None]:
        """Without dropout."""
        pupil.net.eval()
        try:
            yield
        finally:
            pupil.net.train()

    # What is kept of it

    def tables(self) -> dict[str, Table]:
        learned, moments = {}, {}
        for pupil in self._learning():
            assert pupil.optimiser is not None
            for name, value in pupil.learned.items():
                learned[f"{pupil.name}.{name}"] = _array(value)
                for moment in _MOMENTS:
                    kept = pupil.optimiser.state[value].get(moment)
                    moments[f"{pupil.name}.{name}.{moment}"] = (
                        np.zeros(value.shape, np.float32) if kept is None else _array(kept)
                    )
        return {"factors": learned, "moments": moments}

    def restore(self, last: Checkpoint) -> None:
        learned, moments = last.table("factors"), last.table("moments")
        for pupil in self._learning():
            assert pupil.optimiser is not None
            for name, value in pupil.learned.items():
                with torch.no_grad():
                    value.copy_(torch.from_numpy(learned[f"{pupil.name}.{name}"].copy()))
                if last.step:
                    pupil.optimiser.state[value] = {
                        "step": torch.tensor(float(last.step)),
                        **{
                            moment: torch.from_numpy(moments[f"{pupil.name}.{name}.{moment}"].copy()).to(
                                value
                            )
                            for moment in _MOMENTS
                        },
                    }

    def write(self, folder: Path, facts: Mapping[str, Any]) -> Path:
        with atomic_folder(folder, replace=True) as made:
            for pupil in self._learning():
                place = made / PAIR[pupil.name]
                place.parent.mkdir()
                save(pupil.net, place)
            (made / "README.md").write_text(card(self.base, facts), encoding="utf-8")
        return folder

    def sample(self, adapter: Path | None) -> Audio:
        """A vamp of a clip that is held out, by the networks as they are: at the beginning, those without."""
        info, clip = self.codec.info, self.data.shown
        sound = self.codec.decode(Codes(clip.codes, info.codebook_size, info.frame_rate, info.name))
        coarse, fine = self.pupils
        made = (coarse.network(), fine.network())
        model = Vampnet(self.codec, *made, loudness=self.loudness, defaults=self.defaults)
        with self._resting(coarse), self._resting(fine):
            return model.vamp(sound, seed=self.asked.seed)

    def facts(self) -> dict[str, Any]:
        asked = self.asked
        return {
            "length of a clip": f"up to {self.seconds:g} s",
            "networks": " and ".join(pupil.name for pupil in self._learning()),
            "learning rate": f"{asked.lr:g}" if asked.lr else "Noam, as the original's",
        }


_MOMENTS = ("exp_avg", "exp_avg_sq")


def _excerpt(codes: NDArray[np.int32], pupil: Pupil, place: float) -> Tensor:
    """What a network sees of a clip (K, T), which it may be too long for: (1, K, frames), int64.

    place  of the excerpt in the clip, from 0 at its beginning to 1
    """
    frames = min(pupil.frames, codes.shape[1])
    start = min(int(place * (codes.shape[1] - frames + 1)), codes.shape[1] - frames)
    part = codes[: pupil.net.config.codebooks, start : start + frames]
    return torch.from_numpy(part.astype(np.int64))[None]


def _equally_long(drawn: Sequence[tuple[Tensor, Tensor]], most: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Codes and masks in batches of equal length, of at most so many."""
    by_length: dict[int, list[tuple[Tensor, Tensor]]] = {}
    for codes, mask in drawn:
        by_length.setdefault(codes.shape[-1], []).append((codes, mask))
    for group in by_length.values():
        for start in range(0, len(group), most):
            part = group[start : start + most]
            yield torch.cat([codes for codes, _ in part]), torch.cat([mask for _, mask in part])


def _shares(seed: int, first: int, count: int) -> Tensor:
    """r of `count` clips, from the place `first` of a scrambled Sobol sequence, which fills [0, 1] evenly."""
    sobol: Any = torch.quasirandom.SobolEngine(1, scramble=True, seed=seed)  # type: ignore[no-untyped-call]
    if first:
        sobol.fast_forward(first)
    shares: Tensor = sobol.draw(count)[:, 0]
    return shares


def _array(value: Tensor) -> NDArray[np.float32]:
    made: NDArray[np.float32] = value.detach().cpu().numpy()
    return made


def _mixed(*facts: object) -> int:
    """One seed from several facts."""
    return int.from_bytes(hashlib.blake2b(repr(facts).encode(), digest_size=7).digest(), "little")

"""Judging a model: what its predictions cost beside simple counts, and what its continuations are like."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from math import log2
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from audiogen_core.errors import AudiogenError, CodesError, OptionError
from audiogen_core.files import atomic_path
from audiogen_core.models import Fetch
from audiogen_core.progress import counted
from audiogen_core.settings import from_mapping, read_json
from audiogen_core.times import shown_time
from audiogen_core.values import closed
from audiogen_minigpt import checkpoint
from audiogen_minigpt.settings import load_config

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from audiogen_core.codec import Codec
    from audiogen_core.sampling import Sampling
    from audiogen_minigpt.dataset import Dataset
    from audiogen_minigpt.model import GPT

    Ints = NDArray[np.int64]

NAME = "eval.json"
FOLDER = "eval"
REFERENCE = 600.0
"""Seconds of data that generated sound is compared with, at most."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """What was measured. Losses are mean nats per code, entropies bits per code.

    step, split        updates of the model; "val", or "train" where nothing is held out
    codebook_losses    of each codebook; `loss` is their mean
    bits_per_second    what a second of audio costs; unigram_bits and bigram_bits: with counts of single
                       codes and of pairs instead of the model
    entropy, entropy_original      of each codebook, of what was generated and of what it replaces
    quoted, quoted_original        seconds of the longest stretch that also occurs in the training data, of
                                   what was generated and of what it replaces; one for each continuation
    distance           kernel distance in the codec's space, times 1000; 0 is no difference; see `distance`
    continuations      files: {"track", "original", "sound", "picture"}, relative to the run
    """

    step: int
    checkpoint: str
    split: str
    windows: int
    loss: float
    codebook_losses: list[float]
    bits_per_second: float
    unigram_bits: float
    bigram_bits: float
    entropy: list[float] = field(default_factory=list)
    entropy_original: list[float] = field(default_factory=list)
    quoted: list[float] = field(default_factory=list)
    quoted_original: list[float] = field(default_factory=list)
    distance: float | None = None
    continuations: list[dict[str, Any]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return asdict(self)


@closed()
def evaluate(
    run: str | Path,
    data: str | Path | None = None,
    *,
    which: str = "last",
    windows: int = 256,
    clips: int = 3,
    seconds: float = 10.0,
    seed: int = 0,
    codec: str | None = None,
    device: str = "auto",
    fetch: Fetch | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Judge a run's model on data, and write eval.json and the folder eval/ into the run.

    Of a checkpoint that lies in no run, a package's say, they are written into the current folder.

    data     a folder of codes; None: the one the run was trained on
    which    the checkpoint: "last", "best" or "better"; see `checkpoint.find`
    windows  how many fixed windows the losses are measured on, at most
    clips    how many tracks are continued, each for the second half of `seconds`; 0 needs no codec
    codec    the codec's name or path, where the data's own name is not enough
    fetch    how the codec comes where it is not here; see `audiogen_core.codecs.load`
    on_step  called with (parts done, parts in all)

    Raises ModelError for a folder without a valid checkpoint, OptionError when the data does not fit the
    model, CodesError when it is damaged or empty.
    """
    from audiogen_core.dataset.shards import Meta
    from audiogen_core.training.metrics import bits_per_second
    from audiogen_minigpt.dataset import Dataset, check_data
    from audiogen_minigpt.device import choose_device
    from audiogen_minigpt.measures import baselines

    data = _data_of(Path(run), data)
    saved = checkpoint.find(run, which)
    in_run = saved.path.parent.name == checkpoint.FOLDER
    home = saved.path.parent.parent if in_run else Path()
    check_data(str(run), saved.facts, str(data), Meta.load(data).facts)
    model, config, facts = checkpoint.load_model(saved.path, device=str(choose_device(device)))
    train, val = (
        Dataset.open(data, split=name, codebooks=config.codebooks).check() for name in ("train", "val")
    )
    judged = val if val.tracks else train
    if not judged.tracks:
        raise CodesError(f"{data}: there are no codes to judge by")
    report = counted(on_step, 2 + clips)
    losses, count = mean_losses(model, judged, windows)
    report(1)
    known = baselines(data, codebooks=config.codebooks, split=judged.split)
    report(1)
    heard: dict[str, Any] = {}
    if clips:
        heard = _hear(
            model, facts, train, judged, home, clips, seconds, seed, saved.sampling, codec, fetch, report
        )
    evaluation = Evaluation(
        step=saved.step,
        checkpoint=saved.path.name,
        split=judged.split,
        windows=count,
        loss=sum(losses) / len(losses),
        codebook_losses=losses,
        bits_per_second=bits_per_second(losses, judged.meta.frame_rate),
        unigram_bits=known.unigram_bits,
        bigram_bits=known.bigram_bits,
        **heard,
    )
    with atomic_path(home / NAME) as temporary:
        temporary.write_text(json.dumps(evaluation.to_dict(), indent=2), encoding="utf-8")
    return evaluation


def _hear(
    model: GPT,
    facts: Mapping[str, Any],
    train: Dataset,
    judged: Dataset,
    home: Path,
    clips: int,
    seconds: float,
    seed: int,
    sampling: Sampling,
    codec: str | None,
    fetch: Fetch | None,
    report: Callable[[int], None],
) -> dict[str, Any]:
    """What continuations tell: fields of `Evaluation`. Without the codec, what their codes alone tell."""
    from audiogen_minigpt.clips import continue_tracks, load_codec, write_continuations
    from audiogen_minigpt.measures import entropies, longest_quotes

    continuations = continue_tracks(
        model,
        judged,
        count=clips,
        seconds=seconds,
        seed=seed,
        sampling=sampling,
        on_step=lambda done, total: report(1),
    )
    new = [entry.codes[entry.opening :] for entry in continuations]
    old = [entry.original[entry.opening :] for entry in continuations]
    rate = judged.meta.frame_rate
    result: dict[str, Any] = {
        "entropy": entropies(new),
        "entropy_original": entropies(old),
        "quoted": [frames / rate for frames in longest_quotes(new, train)],
        "quoted_original": [frames / rate for frames in longest_quotes(old, train)],
    }
    try:
        loaded = load_codec(model, facts, codec, fetch)
    except AudiogenError as error:
        log.warning("continuations are not heard, because the codec cannot be used: %s", error)
        return result
    files = write_continuations(loaded, continuations, home / FOLDER)
    result["continuations"] = [
        {"track": entry.track, **{key: path and str(path.relative_to(home)) for key, path in paths.items()}}
        for entry, paths in zip(continuations, files, strict=True)
    ]
    result["distance"] = _distance(loaded, new, judged)
    return result


def _distance(codec: Codec, new: Sequence[Ints], judged: Dataset) -> float | None:
    """Between what was generated and the data judged by, of which at most `REFERENCE` seconds are taken."""
    from audiogen_minigpt.measures import embed, kernel_distance

    vectors, rate = codec.codebook_vectors(), judged.meta.frame_rate
    left, reference = round(REFERENCE * rate), []
    for index, track in enumerate(judged.tracks):
        if left > 0:
            reference.append(judged.track(index)[:left])
            left -= track.frames
    return kernel_distance(embed(reference, vectors, rate), embed(new, vectors, rate))


@dataclass(frozen=True)
class Verdict:
    """What a model has learnt, in plain words, by what its predictions cost beside counts.

    level     "nothing": no better than how often each code occurs; "notes": than which code follows which;
              "order": better than both
    sentence  the same for a reader, with the figures
    more      seconds of training that may bring it to the next level; None where that cannot be told
    worse     whether the model that it began with does better at what is held out
    """

    level: str
    sentence: str
    more: float | None = None
    worse: bool = False


CLEAR = 0.02
"""Share of the bits that a model must save to be called better than counts."""


def verdict(evaluation: Evaluation, records: Sequence[Mapping[str, Any]]) -> Verdict:
    """The verdict on a run, from its evaluation and the records of its diary."""
    own, single, pair = (
        evaluation.bits_per_second,
        evaluation.unigram_bits,
        min(evaluation.bigram_bits, evaluation.unigram_bits),
    )
    kind = "eval" if evaluation.split == "val" else "train"
    curve = [(r["step"], r["bits_per_second"]) for r in records if r["kind"] == kind and r["bits_per_second"]]
    costs, more = f"a second costs it {own:,.0f} bits", None
    if own > (1 - CLEAR) * single:
        level, target = "nothing", (1 - CLEAR) * single
        told = f"nothing yet: {costs}, no less than by counts of single codes ({single:,.0f})"
    elif own > (1 - CLEAR) * pair:
        level, target = "notes", (1 - CLEAR) * pair
        told = (
            f"this has learnt the notes but not the order: {costs}, less than by counts of single codes "
            f"({single:,.0f}), but not than by counts of pairs ({pair:,.0f})"
        )
    else:
        level, target = "order", own
        told = (
            f"this {_knows(pair, curve)} notes and order: {costs}, {100 * (1 - own / pair):.0f} % less than "
            f"by counts of pairs ({pair:,.0f})"
        )
    parts = [told, *_beside_the_start(own, curve)]
    gain = _gain(curve)
    worse = _began_with(curve) is not None and own > (1 + CLEAR) * curve[0][1]
    if worse:
        parts.append("more time with the same music will hardly help: add music")
    elif gain is not None and gain < -CLEAR * own:
        parts.append("by the end it got worse on music it has not heard: add music rather than time")
    elif level != "order":
        more = _more(own, target, gain, records)
        parts.append(
            f"train about {shown_time(more)} more"
            if more
            else "how much longer it takes cannot be told yet"
            if gain is None or gain > 0
            else "it has stopped getting better: try more music, or a larger --size"
        )
    elif gain is not None and gain > CLEAR * own:
        parts.append("it still gets better with time")
    if curve and evaluation.step < curve[-1][0]:
        parts.append(f"it was best after {evaluation.step:,} of {curve[-1][0]:,} updates, and so it plays")
    parts += _by_heart(evaluation)
    if evaluation.split != "val":
        parts.append("nothing was held out to judge by, so this says nothing of other music")
    return Verdict(level, "; ".join(parts), more, worse)


def _beside_the_start(own: float, curve: Sequence[tuple[int, float]]) -> list[str]:
    """What training has changed in a model that could play before; nothing for one drawn from a seed."""
    if (before := _began_with(curve)) is None:
        return []
    if own > (1 + CLEAR) * before:
        return [f"training made it worse at music it has not heard: it began with {before:,.0f} bits"]
    if own > (1 - CLEAR) * before:
        much = "not" if own > 0.999 * before else "hardly"
        return [f"your music has {much} bent the model it began with yet ({before:,.0f} bits)"]
    return [f"the model it began with needed {before:,.0f} bits"]


def _began_with(curve: Sequence[tuple[int, float]]) -> float | None:
    """The bits of the model that training began with, which could play; None for one drawn from a seed."""
    return curve[0][1] if curve and curve[0][0] == 0 else None


def _knows(pair: float, curve: Sequence[tuple[int, float]]) -> str:
    """Whose merit it is to be better than counts: of this training, or of the model that it began with."""
    before = _began_with(curve)
    return "knows" if before is not None and before < (1 - CLEAR) * pair else "has learnt"


def _gain(curve: Sequence[tuple[int, float]]) -> float | None:
    """The bits that the second half of the updates saved; None where that was not measured."""
    if not curve:
        return None
    last, cost = curve[-1]
    before = [point for point in curve if 0 < point[0] < last]
    if not before:
        return None
    half = min(before, key=lambda point: abs(point[0] - last / 2))
    return (half[1] - cost) / log2(last / half[0])


def _more(
    own: float, target: float, gain: float | None, records: Sequence[Mapping[str, Any]]
) -> float | None:
    """Seconds of training until the target, when each doubling of the updates goes on to save as much."""
    times = [record for record in records if record["kind"] == "train" and record["step"] > 0]
    if gain is None or gain <= 0 or not times:
        return None
    doublings = (own - target) / gain
    spent = float(times[-1]["elapsed"])
    return max(60.0, spent * (2**doublings - 1)) if doublings < FORESEEN else None


FORESEEN = 8.0
"""Doublings of the training so far, beyond which a forecast would be a guess."""


def _by_heart(evaluation: Evaluation) -> list[str]:
    """Whether continuations are copies, beside what held-out music has in common with the training data."""
    if not evaluation.quoted:
        return []
    copied, usual = median(evaluation.quoted), median(evaluation.quoted_original)
    if copied < max(2.0, 2 * usual):
        return []
    return [f"it plays by heart: {copied:.1f} s at a time are copies of the training music"]


def read_evaluation(run: str | Path) -> Evaluation | None:
    """What `evaluate` last wrote into a run; None when there is none or it is of another version."""
    path = Path(run) / NAME
    with suppress(OptionError):
        return from_mapping(Evaluation, read_json(path, OptionError, finite=False), str(path), OptionError)
    return None


def mean_losses(model: GPT, data: Dataset, windows: int, batch: int = 8) -> tuple[list[float], int]:
    """The mean loss of each codebook in nats on fixed windows of some data, and how many these were."""
    import torch

    from audiogen_minigpt.layout import Layout

    device = next(model.parameters()).device
    layout = Layout.from_config(model.config)
    codes = torch.from_numpy(data.fixed(layout.window(model.config.context), windows))
    sums = torch.zeros(model.config.codebooks, device=device)
    counts = sums.clone()
    with torch.inference_mode():
        for start in range(0, len(codes), batch):
            inputs, targets, mask = (part.to(device) for part in layout.apply(codes[start : start + batch]))
            more_sums, more_counts = model.loss_sums(inputs, targets, mask)
            sums += more_sums
            counts += more_counts
    return (sums / counts).tolist(), len(codes)


def _data_of(run: Path, data: str | Path | None) -> Path:
    if data is not None:
        return Path(data)
    config = load_config(run)
    if config is None:
        raise OptionError(f"{run}: no settings of a run in it; name the folder of codes to judge by")
    return Path(config.data)

"""What training puts around the names of a network's tensors, and where in a file the network is.

A network calls a tensor "emb.0.weight". In files of training it lies in dictionaries ("state_dict", "ema")
and behind the names of what the network was wrapped in (`module.` of DDP, `_orig_mod.` of torch.compile).
With all keys joined by dots both are prefixes: "state_dict.model._orig_mod.emb.0.weight". A prefix is taken
off where every part of it is in the table below and what follows is a name that the network has.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import takewhile

from audiogen_core.errors import WeightsError
from audiogen_core.formats.stored import shorten

PREFERENCE = ("gathered", "best", "average", "plain", "latest")
"""What may be behind a wrapper. The first wins where a file has a network more than once: the best of a
training, gathered from its processes; the best; the average of its steps; a network; the one averaged."""

WRAPPERS = (
    ("gathered", r"fsdp_best_state"),  # of audiocraft, whose "best_state" is then of one process
    ("best", r"best(_model)?(_state|_weights)?(_dict)?"),
    ("average", r"(\w+_)?(ema|swa|avg|averaged?|shadow)(_\w+)?"),
    ("latest", r"online_model|current_model_state"),
    ("plain", r"(\w+_)?(state|state_dict|weights|params|parameters)|checkpoint|ckpt"),
    (
        "plain",
        r"_?modules?|_forward_module|_orig_mod|_fsdp_wrapped_module|_fpw_module|_checkpoint_wrapped_module",
    ),
    ("plain", r"(\w+_)?(models?|net|network|backbone)|net_?[Gg]|[Gg]|gen|generator|student|pl_module"),
    ("plain", r"lm|musicgen|vampnet|codec|encodec|dac|lac|autoencoder|vae|pretransform|diffusion|dit"),
    ("plain", r"t5|mert|hubert|wavebeat"),
)
"""What is behind a wrapper, and its name as a regular expression; the first that matches counts."""

INSIDE = {"module", "_orig_mod", "_fsdp_wrapped_module", "_fpw_module", "_checkpoint_wrapped_module"}
"""Wrappers of layers, which stand within names too; no network has parts that are called so."""

TRAINING = re.compile(
    r"opt|.*(optim|sched|loss|disc|criteri|metric|rng|scaler|callback|balancer|adversar).*|loops|history|teacher"
    r"|hparams|hyper_parameters|initted|step|decay|count|num_updates|n_averaged|compression_model"
)
"""What else files of training hold, behind wrappers or not; no part of the network is called so."""


@dataclass(frozen=True)
class Network:
    """How the tensors of a network are known among others.

    first  a regular expression that some of its names begin with, and no name of another network
    below  where it is part of a larger one, what its names begin with there ("audio_encoder.")
    usual  what stands before its names in files as they are published, of which nothing has to be said
    """

    first: str
    below: str = ""
    usual: tuple[str, ...] = ("", "state_dict.", "best_state.")


@dataclass
class Place:
    """Where a network is in a file.

    prefix    before its names
    others    prefixes behind which it is once more
    names     its name of a tensor -> that in the file
    passed    tensors of training among them, which it has not
    averaged  tensors whose average was found under a name without dots
    """

    prefix: str
    others: list[str]
    names: dict[str, str] = field(default_factory=dict)
    passed: int = 0
    averaged: int = 0


def find(names: Collection[str], networks: Mapping[str, Network]) -> tuple[dict[str, Place], list[str]]:
    """The networks that are among the names of a file, and the names that belong to none of them.

    The names of training, and those of a network that is there once more, are not among the latter.
    Raises WeightsError when two names of a network are one without their wrappers.
    """
    places = {key: place for key, network in networks.items() if (place := _place(names, network))}
    dotless = _dotless(names)
    used = set[str]()
    for place in places.values():
        used |= set(place.names.values())
        _average(place, dotless)
        used |= set(place.names.values())
    again = tuple(prefix for place in places.values() for prefix in place.others)
    return places, [
        name for name in names if name not in used and not name.startswith(again) and not _of_training(name)
    ]


def common(names: Iterable[str]) -> str:
    """What all names begin with, up to a dot: "module.", or "" when they begin differently."""
    parts = [name.split(".")[:-1] for name in names]
    same = (
        takewhile(lambda pair: pair[0] == pair[1], zip(min(parts), max(parts), strict=False)) if parts else ()
    )
    return "".join(f"{part}." for part, _ in same)


def unknown(names: Iterable[str], network: Network) -> str:
    """The first prefix before a name of a network, whether it is a wrapper known here or not; or ""."""
    pattern = re.compile(rf"(.*?\.){re.escape(network.below)}(?:{network.first})")
    return next((match[1] for match in map(pattern.match, names) if match), "")


def _place(names: Collection[str], network: Network) -> Place | None:
    prefixes = sorted(dict.fromkeys(_prefixes(names, network)), key=_preference)
    if not prefixes:
        return None
    place = Place(prefixes[0] + network.below, [prefix + network.below for prefix in prefixes[1:]])
    apart = tuple(prefix for prefix in place.others if prefix.startswith(place.prefix))
    for name in names:
        if not name.startswith(place.prefix) or name.startswith(apart):
            continue
        own = name.removeprefix(place.prefix)
        if _of_training(own):
            place.passed += 1
            continue
        own = _outside(own.split("."))
        if own in place.names:
            raise WeightsError(f"two tensors are named {shorten(own)} without their wrappers")
        place.names[own] = name
    return place


def _prefixes(names: Iterable[str], network: Network) -> Iterator[str]:
    """What stands before names of a network: wrappers alone."""
    first = re.compile(re.escape(network.below) + f"(?:{network.first})")
    for name in names:
        parts = name.split(".")
        for count, part in enumerate(parts):
            if part not in INSIDE and first.match(_outside(parts[count:])):
                yield ".".join([*parts[:count], ""])
                break
            if _kind(part) is None:
                break


def _outside(parts: Iterable[str]) -> str:
    """A name without the wrappers of layers."""
    return ".".join(part for part in parts if part not in INSIDE)


@cache
def _kind(part: str) -> str | None:
    """What is behind a wrapper; None for a name that is none."""
    return next((kind for kind, pattern in WRAPPERS if re.fullmatch(pattern, part)), None)


def _behind(prefix: str) -> str:
    """What is behind several wrappers: the innermost counts that says more than "plain"."""
    kinds = [kind for part in reversed(prefix.split(".")) if (kind := _kind(part)) not in (None, "plain")]
    return kinds[0] if kinds else "plain"


def _preference(prefix: str) -> int:
    return PREFERENCE.index(_behind(prefix))


def _of_training(name: str) -> bool:
    for part in name.split("."):
        if TRAINING.fullmatch(part):
            return True
        if _kind(part) is None:
            return False
    return False


def _dotless(names: Iterable[str]) -> dict[str, str]:
    """Averages kept as buffers (latent diffusion's `model_ema.`): a name without dots -> that in the file."""
    found = {}
    for name in names:
        prefix, _, own = name.rpartition(".")
        if _behind(prefix) == "average" and all(map(_kind, prefix.split("."))):
            found[own] = name
    return found


def _average(place: Place, dotless: Mapping[str, str]) -> None:
    """Put averages in the place of what was trained last, where their names have no dots.

    Such an average is of the network or of a module around it, whose part of the prefix its names have too.
    """
    if not dotless or _behind(place.prefix) != "plain":
        return
    parts = place.prefix.split(".")
    tables = (
        {
            own: found
            for own in place.names
            if (found := dotless.get("".join([*parts[count:], *own.split(".")])))
        }
        for count in range(len(parts))
    )
    averages = max(tables, key=len)
    place.names |= averages
    place.averaged = len(averages)

"""The files of a VampNet as its authors publish it, and which of its networks is which."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from audiogen_core.errors import ModelError, OptionError
from audiogen_core.lora import PAIR, Asked, pair
from audiogen_onnx.exporter.config import NetworkConfig
from audiogen_onnx.manifest import CHECKPOINTS, sha256

CODEC, BEATS = "codec.pth", "wavebeat.pth"
COARSE, FINE = CHECKPOINTS["coarse"], CHECKPOINTS["fine"]
"""The files of a folder of checkpoints, as upstream publishes them; the beat tracker may be missing."""


@dataclass(frozen=True)
class Sources:
    """The files an export is made from; the updates (`lora.pth`) and the beat tracker are optional."""

    codec: Path
    coarse: Path
    fine: Path
    coarse_lora: str | Path | None = None
    fine_lora: str | Path | None = None
    beats: Path | None = None

    @classmethod
    def of(
        cls,
        folder: str | Path,
        coarse_lora: str | Path | None = None,
        fine_lora: str | Path | None = None,
        *,
        beats: bool = True,
    ) -> Sources:
        """The files of a folder. Raises ModelError when one is missing."""
        paths = [Path(folder) / name for name in (CODEC, COARSE, FINE)]
        missing = [path.name for path in paths if not path.is_file()]
        if missing:
            raise ModelError(
                f"{folder}: lacks {', '.join(missing)}; a folder of VampNet's checkpoints holds "
                f"{CODEC}, {COARSE} and {FINE}"
            )
        tracker = Path(folder) / BEATS
        found = tracker if beats and tracker.is_file() else None
        return cls(paths[0], paths[1], paths[2], coarse_lora, fine_lora, found)

    @property
    def size(self) -> int:
        """Bytes of the networks and the codec."""
        return sum(path.stat().st_size for path in (self.codec, self.coarse, self.fine))

    def hashes(self) -> dict[str, str]:
        """Name -> SHA-256. A lora.pth is named after its network, and its strength unless that is 1."""
        hashes = {path.name: sha256(path) for path in (self.codec, self.coarse, self.fine)}
        hashes |= lora_hashes(self.coarse_lora, self.fine_lora)
        return hashes if self.beats is None else hashes | {BEATS: sha256(self.beats)}


def lora_hashes(coarse: str | Path | None, fine: str | Path | None) -> dict[str, str]:
    """Network and strength, unless that is 1, of each lora.pth -> its SHA-256."""
    hashes = {}
    for network, lora in {"coarse": coarse, "fine": fine}.items():
        if lora is not None:
            asked = Asked.of(str(lora))
            at = "" if asked.strength == 1 else f" at {asked.strength:g}"
            hashes[f"{network} lora{at}"] = sha256(asked.path)
    return hashes


def loras_in(lora: str | Path) -> tuple[str | None, str | None]:
    """The lora.pth of each network in a folder of `tune`, or FOLDER:STRENGTH; None where it has none.

    Raises OptionError for another folder, or none.
    """
    asked = Asked.of(str(lora))
    found = pair(asked.path)
    if not found:
        raise OptionError(
            f"{asked.path}: expected a folder with {' or '.join(map(str, PAIR.values()))}; a single file is "
            "named by coarse_lora or fine_lora",
            *("lora", "coarse_lora", "fine_lora"),
        )
    coarse, fine = (f"{found[name]}:{asked.strength!r}" if name in found else None for name in PAIR)
    return coarse, fine


def check_role(config: NetworkConfig, given: int, where: str) -> None:
    """Raise ModelError when a network stands in the other's place, or does not go with it."""
    if config.conditioning_codebooks == given:
        return
    if given == 0:
        raise ModelError(
            f"{where}: is given {config.conditioning_codebooks} codebooks and makes the others, so it is a "
            f"fine model ({FINE}), but the coarse one belongs here"
        )
    if config.conditioning_codebooks == 0:
        raise ModelError(
            f"{where}: makes all its codebooks, so it is a coarse model, but {FINE} belongs here"
        )
    raise ModelError(
        f"{where}: is given {config.conditioning_codebooks} codebooks, but the coarse model makes {given}; "
        "the files do not belong together"
    )

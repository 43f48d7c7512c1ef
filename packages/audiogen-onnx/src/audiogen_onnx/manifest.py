"""Manifest: what an exported folder says about itself, and whether its files are the ones it means."""

from __future__ import annotations

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

from audiogen_core.errors import ManifestError
from audiogen_core.files import atomic_path
from audiogen_core.settings import from_mapping, parse_json
from audiogen_core.values import closed
from audiogen_core.verify import Digest, Memory, problem
from audiogen_onnx.graph_file import check_name, check_regular, identity

NAME = "manifest.json"
FORMAT = 1
FAMILY = "vampnet"
"""Of a folder that does not say."""

DTYPES = ("float32", "float16", "int8", "int4")
NETWORKS = ("coarse", "fine", "coarse_step", "fine_step")
"""Graphs every folder has; `beats` may be added."""

TRACKER = "beats.onnx"
"""The file of that one."""

CHECKPOINTS = {"coarse": "coarse.pth", "fine": "c2f.pth"}
"""The networks, and the checkpoints of VampNet's authors, as `created_from` names them."""

CODEC = ("encoder", "decoder")
"""Graphs of the codec. A folder without them names a codec of audiogen-core, which takes their place."""

GRAPHS = CODEC + NETWORKS

LOUDNESS = -24.0
"""LUFS that VampNet's codec was trained on."""

ALWAYS_HASHED = 16 << 20
"""Files of up to so many bytes are hashed whenever a folder is loaded: graphs, small weights. Larger ones are
hashed once."""

_LARGEST = 1 << 20


def over(force: bool) -> tuple[str, ...]:
    """The file by which a folder shows that it was exported, and so may be written over."""
    return (NAME,) if force else ()


@dataclass(frozen=True)
class StoredFile:
    """A file of the folder: its plain name, bytes, and SHA-256 in hex."""

    file: str
    size: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> StoredFile:
        """The description of a file as it is now."""
        return cls(path.name, path.stat().st_size, sha256(path))


@dataclass(frozen=True)
class Graph:
    """One graph and the file of its weights. Step graphs share the weights of their network."""

    graph: StoredFile
    data: StoredFile | None = None

    @classmethod
    def of(cls, path: Path, network: Path | None = None) -> Graph:
        """The description of a graph as it is now. Its weights lie beside it in `NAME.onnx.data`, or in
        that of `network`, or in the graph itself.
        """
        owner = network or path
        data = owner.with_name(f"{owner.name}.data")
        return cls(StoredFile.of(path), StoredFile.of(data) if data.exists() else None)

    @property
    def files(self) -> tuple[StoredFile, ...]:
        return (self.graph,) if self.data is None else (self.graph, self.data)


@dataclass(frozen=True)
class CodecGeometry:
    """The codec: rate in Hz, samples per frame, codebooks and their size; `name` as in `Codes.codec`.

    loudness  LUFS that sound is brought to before it is encoded: what the networks were trained on
    """

    name: str
    sample_rate: int
    hop_length: int
    codebooks: int
    codebook_size: int
    channels: int = 1
    loudness: float = LOUDNESS

    @property
    def frame_rate(self) -> float:
        """Frames per second, Hz."""
        return self.sample_rate / self.hop_length

    def frames(self, seconds: float) -> int:
        """Frames that hold so many seconds, rounded up."""
        return math.ceil(seconds * self.sample_rate / self.hop_length)


@dataclass(frozen=True)
class NetworkGeometry:
    """One of the two networks: the codebooks it reads, how many of them it never makes, and the seconds it
    was trained on."""

    codebooks: int
    conditioning_codebooks: int
    window_seconds: float

    @property
    def predicted_codebooks(self) -> int:
        return self.codebooks - self.conditioning_codebooks


@dataclass(frozen=True, kw_only=True)
class Exported(ABC):
    """What every exported folder says about itself.

    package_version  of audiogen-onnx that wrote it
    created_from     name -> SHA-256 of each checkpoint it was made from
    dtype            of the weights: float32, float16, int8 or int4
    graphs           name -> files
    defaults         options of a job -> values that suit this model, where they are not those of all
    format           version of this description
    """

    family: ClassVar[str] = FAMILY

    package_version: str
    created_from: Mapping[str, str]
    dtype: str
    graphs: Mapping[str, Graph]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    def __post_init__(self) -> None:
        problem = self.problem() or _wrong_file(self)
        if self.dtype not in DTYPES:
            problem = problem or f"dtype {self.dtype!r} is none of {', '.join(DTYPES)}"
        if problem:
            raise ManifestError(f"the description of the exported folder is wrong: {problem}")

    def problem(self) -> str | None:
        """The first thing that cannot be in what a kind of folder adds, or None."""
        return None

    @classmethod
    @abstractmethod
    def parsed(cls, facts: dict[str, Any], damaged: str) -> Self:
        """From the values of JSON, the graphs being parsed already. What it raises says what is wrong."""

    @property
    def beside(self) -> tuple[StoredFile, ...]:
        """Files of the folder that are of no graph."""
        return ()

    @cached_property
    def files(self) -> dict[str, StoredFile]:
        """Every file by name."""
        of_graphs = (stored for graph in self.graphs.values() for stored in graph.files)
        return {stored.file: stored for stored in (*of_graphs, *self.beside)}

    def graph_path(self, folder: str | Path, name: str) -> Path:
        """Where a graph lies. Raises ManifestError when the folder has none of that name."""
        if name not in self.graphs:
            raise ManifestError(f"{folder}: has no graph {name!r}; it has {', '.join(sorted(self.graphs))}")
        return Path(folder) / self.graphs[name].graph.file

    def check(self, folder: str | Path, *, verify: bool = False) -> None:
        """Raise ManifestError unless every file is there, no link, of its size and of its hash.

        The hash of a large file that passed is remembered with its size, time and inode, and not computed
        again while these stay the same, but with `verify`. See `audiogen_core.verify`.
        """
        memory = Memory(Path(folder))
        for stored in self.files.values():
            path = Path(folder) / stored.file
            check_regular(path)
            size = path.stat().st_size
            if size != stored.size:
                raise ManifestError(
                    f"{path}: has {size} bytes, {NAME} says {stored.size}; copy or export the folder again"
                )
            if verify or size <= ALWAYS_HASHED:
                other = sha256(path) != stored.sha256
            else:
                other = problem(path, stored.file, memory, Digest(stored.sha256), None) is not None
            if other:
                raise ManifestError(
                    f"{path}: its content is not the one {NAME} describes; copy or export the folder again"
                )

    def identities(self, folder: str | Path) -> dict[str, tuple[int, ...]]:
        """The `identity` of every file. Raises ManifestError when one is missing, or a link."""
        return {name: identity(Path(folder) / name) for name in self.files}

    def save(self, folder: str | Path) -> Path:
        """Write manifest.json into the folder, atomically. Returns its path."""
        path = Path(folder) / NAME
        facts = asdict(self) | ({} if self.family == FAMILY else {"family": self.family})
        with atomic_path(path, ManifestError) as temporary:
            temporary.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        return path

    @classmethod
    @closed(ManifestError)
    def load(cls, folder: str | Path, *, verify: bool = False) -> Self:
        """Read a folder's manifest and check its files; see `check`. Raises ManifestError."""
        manifest = cls._read(Path(folder) / NAME)
        manifest.check(folder, verify=verify)
        return manifest

    @classmethod
    @contextmanager
    def opened(cls, folder: str | Path, *, verify: bool = False) -> Iterator[Self]:
        """As `load`, for a `with` block that reads the files: they are those that were checked.

        Raises ManifestError at its end when one was written to or replaced on the way.
        """
        manifest = cls._read(Path(folder) / NAME)
        before = manifest.identities(folder)
        manifest.check(folder, verify=verify)
        yield manifest
        if manifest.identities(folder) != before:
            raise ManifestError(f"{folder}: its files were changed while they were read; load it again")

    @classmethod
    def _read(cls, path: Path) -> Self:
        damaged, facts = f"{path}: damaged or not a manifest", read_facts(path)
        try:
            facts["graphs"] = {
                name: from_mapping(Graph, entry, f"{damaged}: {name}", ManifestError)
                for name, entry in dict(facts["graphs"]).items()
            }
            facts["defaults"] = dict(facts.get("defaults", {}))
            family = facts.pop("family", FAMILY)
            if family != cls.family:
                raise ManifestError(f"{path}: is of a model of the family {family!r}, not {cls.family!r}")
            manifest = cls.parsed(facts, damaged)
        except (KeyError, TypeError, ValueError) as error:
            raise ManifestError(f"{damaged} ({error!r})") from error
        for stored in manifest.files.values():
            check_name(stored.file, path)
        return manifest


def read_facts(path: Path) -> dict[str, Any]:
    """What a manifest.json says, of this version and not looked at yet. Raises ManifestError."""
    if not path.parent.is_dir():
        raise ManifestError(f"{path.parent}: no such folder")
    if not path.exists():
        raise ManifestError(
            f"{path.parent}: holds no {NAME}, so it is no exported folder; make one with "
            "`audiogen-onnx export CHECKPOINTS -o FOLDER`"
        )
    check_regular(path)
    damaged = f"{path}: damaged or not a manifest"
    if path.stat().st_size > _LARGEST:
        raise ManifestError(f"{damaged}: more than {_LARGEST} bytes")
    try:
        # NaN passes here, since `problem` says which value it is.
        facts = parse_json(path.read_text(encoding="utf-8"), damaged, ManifestError, finite=False)
    except ValueError as error:
        raise ManifestError(f"{damaged} ({error!r})") from error
    if not isinstance(facts, dict):
        raise ManifestError(f"{damaged}: not an object")
    if facts.get("format") != FORMAT:
        raise ManifestError(
            f"{path}: has format {facts.get('format')!r}, this version reads {FORMAT}; "
            "export the folder again or update audiogen-onnx"
        )
    return facts


@dataclass(frozen=True, kw_only=True)
class Manifest(Exported):
    """An exported VampNet.

    codec, coarse, fine  geometry
    updates  network -> the low-rank updates that are in its weights, as a lora.pth has them; None in a folder
             that does not tell

    Its graphs are coarse, fine, coarse_step, fine_step; encoder and decoder, unless the codec is one of
    audiogen-core; beats if present. Its defaults are options of a vamp.
    """

    codec: CodecGeometry
    coarse: NetworkGeometry
    fine: NetworkGeometry
    updates: Mapping[str, StoredFile] | None = None

    def problem(self) -> str | None:
        return _problem(self)

    @property
    def beside(self) -> tuple[StoredFile, ...]:
        return tuple((self.updates or {}).values())

    @classmethod
    def parsed(cls, facts: dict[str, Any], damaged: str) -> Self:
        facts |= {"codec": CodecGeometry(**facts["codec"])}
        facts |= {name: NetworkGeometry(**facts[name]) for name in ("coarse", "fine")}
        if (updates := facts.get("updates")) is not None:
            facts["updates"] = {
                name: from_mapping(StoredFile, entry, f"{damaged}: {name}", ManifestError)
                for name, entry in dict(updates).items()
            }
        return cls(**facts)

    @property
    def has_codec(self) -> bool:
        """Whether the codec lies in the folder, as graphs."""
        return set(CODEC) <= set(self.graphs)


def family_of(folder: str | Path) -> str:
    """The family of an exported folder, by which it is read. Raises ManifestError where there is none."""
    facts = read_facts(Path(folder) / NAME)
    family = facts.get("family", FAMILY)
    return family if isinstance(family, str) else FAMILY


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _problem(manifest: Manifest) -> str | None:
    """The first thing that cannot be, or None."""
    codec, nets = manifest.codec, {"coarse": manifest.coarse, "fine": manifest.fine}
    for name in ("sample_rate", "hop_length", "codebooks", "codebook_size", "channels"):
        value = getattr(codec, name)
        if not _whole(value) or value < 1:
            return f"the codec's {name} is {value!r}"
    if unknown := set(manifest.updates or {}) - set(nets):
        return f"there are low-rank updates of {', '.join(sorted(unknown))}, which is no network"
    for name, net in nets.items():
        if not _whole(net.codebooks) or not 1 <= net.codebooks <= codec.codebooks:
            return f"the {name} model reads {net.codebooks!r} codebooks, the codec has {codec.codebooks}"
        if not _whole(net.conditioning_codebooks) or not 0 <= net.conditioning_codebooks < net.codebooks:
            return f"the {name} model has {net.conditioning_codebooks!r} conditioning codebooks"
        if not isinstance(net.window_seconds, int | float) or not 0 < net.window_seconds < math.inf:
            return f"the {name} model's window is {net.window_seconds!r} seconds"
    if not isinstance(codec.loudness, int | float) or not -100 < codec.loudness <= 0:
        return f"the codec's loudness is {codec.loudness!r}"
    needed = GRAPHS if set(CODEC) & set(manifest.graphs) else NETWORKS  # a codec has both its graphs or none
    if missing := [name for name in needed if name not in manifest.graphs]:
        return f"graphs are missing: {', '.join(missing)}"
    return None


def _wrong_file(manifest: Exported) -> str | None:
    known: dict[str, StoredFile] = {}
    of_graphs = [(name, stored) for name, graph in manifest.graphs.items() for stored in graph.files]
    for name, stored in (*of_graphs, *((stored.file, stored) for stored in manifest.beside)):
        if stored.size < 0:
            return f"a file of {name} has the size {stored.size!r}"
        if len(stored.sha256) != 64:
            return f"a file of {name} has no SHA-256"
        if known.setdefault(stored.file, stored) != stored:
            return f"{stored.file} is described twice, differently"
    return None


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)

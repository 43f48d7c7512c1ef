"""What can be fetched, `ModelSpec`, what comes with a package, `Shipped`, and finding one by name.

A catalogue is a plain dictionary of name -> ModelSpec or Shipped, kept as data in each package: see
`read_catalog`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path, PurePosixPath

from audiogen_core.errors import ModelError, UnknownModel
from audiogen_core.runs import run_in
from audiogen_core.settings import from_mapping, read_toml

_REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class FileSpec:
    """One file of a model: its path in the repository, and what is known of it.

    size    bytes, or None
    sha256  64 hex digits, or None: then the hash that the hub states is used
    """

    name: str
    size: int | None = None
    sha256: str | None = None

    def __post_init__(self) -> None:
        path = PurePosixPath(self.name)
        if (
            not self.name
            or path.is_absolute()
            or ".." in path.parts
            or "\\" in self.name
            or str(path) != self.name
        ):
            raise ModelError(f"{self.name!r} is not the name of a file inside a repository")
        if self.sha256 is not None and not _SHA256.fullmatch(self.sha256):
            raise ModelError(f"{self.name}: {self.sha256!r} is not a sha256 of 64 lower-case hex digits")


@dataclass(frozen=True)
class ModelSpec:
    """A model on the hub, pinned.

    name      what commands call it
    family    which loader reads it ("encodec", ...); "" for a model outside the catalogue
    repo      "owner/name" on the hub
    revision  a commit hash, or a tag; a branch only for a model outside the catalogue
    files     the files to fetch; empty means the weights and settings that the hub lists
    license   shown before the first download
    note      one sentence about the licence or the model, or ""
    understands  options of a job that only some models take, of those this one does
    sample_rate, channels  of what it makes, so that an output is checked before a fetch; None: not known
    """

    name: str
    family: str
    repo: str
    revision: str
    files: tuple[FileSpec, ...]
    license: str
    note: str = ""
    understands: tuple[str, ...] = ()
    sample_rate: int | None = None
    channels: int | None = None

    def __post_init__(self) -> None:
        if not _REPO.fullmatch(self.repo) or ".." in self.repo:
            raise ModelError(f"{self.repo!r} is not a hub id of the form owner/name")
        if not re.fullmatch(r"[\w][\w./-]{0,199}", self.revision) or ".." in self.revision:
            raise ModelError(f"{self.revision!r} is not a commit hash, tag or branch")

    @property
    def pinned(self) -> bool:
        """Whether the revision is a commit hash, so the files can never change."""
        return _COMMIT.fullmatch(self.revision) is not None

    @property
    def size(self) -> int | None:
        """Bytes of all files, or None when a size is not known."""
        sizes = [file.size for file in self.files]
        return None if not sizes or None in sizes else sum(size for size in sizes if size is not None)

    @property
    def page(self) -> str:
        """The page of the model, with its licence."""
        return f"https://huggingface.co/{self.repo}"


Fetch = Callable[[ModelSpec], Path]
"""Gives the folder of a model, fetching it where its maker allows that; see `audiogen_core.hub`."""


@dataclass(frozen=True)
class Shipped:
    """A model that lies in the folder of a package: nothing is fetched.

    name, family, license, note, understands  as of a `ModelSpec`
    package  the import name of the package
    folder   where in it, with forward slashes
    """

    name: str
    family: str
    package: str
    folder: str
    license: str
    note: str = ""
    understands: tuple[str, ...] = ()

    @property
    def repo(self) -> str:
        """What stands in the place of a repository in lists."""
        return f"comes with {self.package.replace('_', '-')}"

    @property
    def pinned(self) -> bool:
        """Always: the files are those of the installed version."""
        return True

    @property
    def path(self) -> Path:
        """Its folder on the disk. Raises ModelError when the package is installed without it."""
        path = self._place()
        if not path.is_dir():
            raise ModelError(f"{path}: the model {self.name!r} is not there; install {self.package} anew")
        return path

    @property
    def size(self) -> int | None:
        """Bytes of all files, or None when they are not there."""
        sizes = [path.stat().st_size for path in self._place().rglob("*") if path.is_file()]
        return sum(sizes) if sizes else None

    def _place(self) -> Path:
        return Path(str(files(self.package).joinpath(*PurePosixPath(self.folder).parts)))


def read_catalog(package: str, file: str = "models.toml") -> dict[str, ModelSpec | Shipped]:
    """The catalogue in a TOML file of a package: one table per model, by the name commands have for it.

        [musicgen-small]        # the fields of a ModelSpec; a file is a name, or the fields of a FileSpec
        family = "musicgen"
        repo = "facebook/musicgen-small"
        revision = "4c8334b02c6ec4e8664a91979669a501ec497792"
        files = ["config.json", { name = "model.safetensors", sha256 = "..." }]
        license = "CC-BY-NC-4.0"

        [demo]                  # a `folder` makes it a Shipped one, of the same package
        family = "musicgen"
        folder = "data/demo"
        license = "Apache-2.0"

    Raises ModelError, naming the file and the table, for anything else.
    """
    path = Path(str(files(package).joinpath(*PurePosixPath(file).parts)))
    catalog: dict[str, ModelSpec | Shipped] = {}
    for name, table in read_toml(path, ModelError).items():
        where = f"{path}: {name}"
        if not isinstance(table, dict):
            raise ModelError(f"{where}: expected a table")
        if "folder" in table:
            shipped = {"name": name, "package": package, **table}
            catalog[name] = from_mapping(Shipped, shipped, where, ModelError)
        else:
            spec = {"name": name, "files": [], **table}
            if isinstance(spec["files"], list):
                spec["files"] = [{"name": each} if isinstance(each, str) else each for each in spec["files"]]
            catalog[name] = from_mapping(ModelSpec, spec, where, ModelError)
    return catalog


def find(
    catalog: Mapping[str, ModelSpec | Shipped], name_or_path: str | Path, *, unlisted: bool = False
) -> ModelSpec | Path:
    """The path when it exists, or the catalogue's model of that name or hub id; of a shipped one its folder.

    `unlisted` accepts any hub id "owner/name", with "@revision" to choose one.
    Raises UnknownModel with the closest names, and ModelError for the folder of a training, which is no model
    of a catalogue.
    """
    name = str(name_or_path)
    path = Path(name).expanduser()
    if path.exists():
        if (run := run_in(path)) is not None:
            raise ModelError(run.use)
        return path
    if isinstance(name_or_path, str) and name in catalog:
        spec = catalog[name]
        return spec.path if isinstance(spec, Shipped) else spec
    repo, _, revision = name.partition("@")
    if not isinstance(name_or_path, str) or not _REPO.fullmatch(repo):
        raise UnknownModel(name, catalog)
    for listed in catalog.values():
        if isinstance(listed, ModelSpec) and listed.repo == repo and revision in ("", listed.revision):
            return listed
    if unlisted:
        return ModelSpec(
            name, "", repo, revision or "main", (), "unknown", f"See https://huggingface.co/{repo}."
        )
    error = UnknownModel(name, catalog)
    error.args = (f"{error}; a hub id outside the catalogue must be allowed (--unlisted)",)
    raise error

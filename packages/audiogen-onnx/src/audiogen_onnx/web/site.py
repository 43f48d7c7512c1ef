"""A static page out of exported folders: the page, onnxruntime-web, graphs, and what is to be known of them.

What the page knows of its models stands in `models.json`, as data: no name in it is ever read as HTML.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from audiogen_core.codec import Codec
from audiogen_core.errors import OptionError
from audiogen_core.files import atomic_folder, require_new_folder, require_room
from audiogen_core.hub import DownloadNotice
from audiogen_core.models import Fetch, Shipped
from audiogen_core.musicgen.options import Defaults
from audiogen_core.musicgen.positions import speeds
from audiogen_core.values import closed
from audiogen_onnx.catalog import CATALOG, MUSICGEN
from audiogen_onnx.codec import codec_of
from audiogen_onnx.exporter import codec_graph
from audiogen_onnx.exporter.musicgen.export import require_onnx
from audiogen_onnx.manifest import CODEC, Graph, Manifest, StoredFile, family_of
from audiogen_onnx.musicgen import load as musicgen
from audiogen_onnx.musicgen.manifest import TOKENIZER, WORDS, MusicGenManifest
from audiogen_onnx.vampnet.options import VampOptions
from audiogen_onnx.web.runtime import FILES, runtime

MODELS = "models.json"
"""What the page has, by which a folder shows that it is such a page."""

DEMO = "demo"

PAGE = (
    *("index.html", "page.css", "page.mjs", "work.mjs", "graphs.mjs", "musicgen.mjs", "vampnet.mjs"),
    *("random.mjs", "sampling.mjs", "sound.mjs", "text.mjs"),
)

KNOWN = (
    *("temperature", "fine_temperature", "mask_temperature", "top_p", "steps", "fine_steps"),
    *("period", "keep", "prefix", "suffix", "infill"),
)
"""Options of a vamp that the page goes by."""

_GRAPHS = {"musicgen": ("text", "cross", "decoder"), "vampnet": ("coarse", "fine")}


@closed()
def write_site(
    models: Sequence[str | Path],
    out_dir: str | Path,
    *,
    runtime_dir: str | Path | None = None,
    offline: bool = False,
    force: bool = False,
    notify: Callable[[str], None] | None = None,
    fetch: Fetch | None = None,
) -> list[dict[str, Any]]:
    """Write a page that makes music in the browser. Returns what its `models.json` says.

    models       exported folders of MusicGen (text to music) and VampNet; "demo": the two of the package
    out_dir      a new or empty folder; it appears whole or not at all. Any web server shows it
    runtime_dir  where onnxruntime-web is; see `runtime`
    offline      never use the network
    force        a page that was written there before gives way
    notify       called before onnxruntime-web is fetched; None: a DownloadNotice
    fetch        how the codec of a model comes, where it is not here

    Raises OptionError for a model that the page has no place for, ManifestError for a folder that is none,
    MissingDependency without onnx, and what `runtime` raises.
    """
    require_onnx()
    if isinstance(models, str):
        raise OptionError(f"models must be a list of folders, got {models!r}", "models")
    over = (MODELS,) if force else ()
    require_new_folder(out_dir, over)
    chosen = [folder for model in models for folder in _folders(model)]
    if not chosen:
        raise OptionError("name at least one exported folder, or demo", "models")
    require_room(
        out_dir, sum(path.stat().st_size for folder in chosen for path in folder.glob("*") if path.is_file())
    )
    families = [_family(folder) for folder in chosen]  # before anything is fetched
    place = None if runtime_dir is None else Path(runtime_dir)
    computing = runtime(place, offline=offline, notify=notify or _warn)
    with atomic_folder(out_dir, over=over) as site:
        with as_file(files("audiogen_onnx.web") / "page") as page:
            for name in PAGE:
                shutil.copyfile(page / name, site / name)
        (site / "runtime").mkdir()
        for name in FILES:
            shutil.copyfile(computing / name, site / "runtime" / name)
        writer = _Site(site, fetch)
        facts = [writer.add(*each) for each in zip(chosen, families, strict=True)]
        (site / MODELS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return facts


def _warn(line: str) -> None:
    warnings.warn(line, DownloadNotice, stacklevel=3)


def _folders(model: str | Path) -> list[Path]:
    """The exported folders that a name stands for; a path that exists wins over a name."""
    path = Path(model)
    if str(model) != DEMO or path.exists():
        return [path]
    shipped = (MUSICGEN[DEMO], CATALOG[DEMO])
    return [each.path for each in shipped if isinstance(each, Shipped)]


def _family(folder: Path) -> str:
    family = family_of(folder)
    if family not in _GRAPHS:
        raise OptionError(f"{folder}: is a model of the family {family!r}; the page has MusicGen and VampNet")
    return family


@dataclass
class _Site:
    """The folder of a page in the making.

    codecs  the name of each codec that lies in it -> its graphs
    """

    site: Path
    fetch: Fetch | None
    codecs: dict[str, dict[str, Any]] = field(default_factory=dict)
    count: int = 0

    def add(self, folder: Path, family: str) -> dict[str, Any]:
        """Take a model in. Returns what the page is told of it."""
        place = f"models/{self.count}"
        self.count += 1
        (self.site / place).mkdir(parents=True)
        return self._musicgen(folder, place) if family == "musicgen" else self._vampnet(folder, place)

    def _musicgen(self, folder: Path, place: str) -> dict[str, Any]:
        with MusicGenManifest.opened(folder) as manifest:
            config = manifest.config
            if config.clip or config.text_in_prefix:
                raise OptionError(
                    f"{folder}: follows a {config.clip or 'prefix'}; the page has models of text alone"
                )
            codec = musicgen.codec_of(manifest, folder, self.fetch)
            graphs = self._graphs(folder, manifest.graphs, _GRAPHS["musicgen"], place)
            beside = {stored.file: stored for stored in manifest.beside}
            texts = {
                name: self._file(folder, beside[file], place) if file in beside else None
                for name, file in (("tokenizer", TOKENIZER), ("prompts", WORDS))
            }
        named = ("width", "layers", "heads", "codebooks", "codebook_size", "delays", "channels", "clock")
        return {
            **_named("musicgen", "MusicGen", folder, place, manifest.dtype),
            "config": {name: getattr(config, name) for name in (*named, "window_seconds")},
            "codec": asdict(manifest.codec),
            "defaults": asdict(Defaults.from_dict(manifest.defaults)),
            "speeds": [float(speed) for speed in speeds(config.width)],
            "graphs": {**graphs, "codec.decoder": self._codec(codec)["decoder"]},
            "texts": texts,
        }

    def _vampnet(self, folder: Path, place: str) -> dict[str, Any]:
        with Manifest.opened(folder) as manifest:
            if unknown := sorted(set(manifest.defaults) - set(KNOWN)):
                raise OptionError(f"{folder}: has defaults that the page does not know: {', '.join(unknown)}")
            defaults = VampOptions.of(manifest.defaults)
            graphs = self._graphs(folder, manifest.graphs, _GRAPHS["vampnet"], place)
            if manifest.has_codec:
                codec = self._graphs(folder, manifest.graphs, CODEC, place)
            else:
                codec = self._codec(codec_of(manifest, folder, fetch=self.fetch))
        return {
            **_named("vampnet", "VampNet", folder, place, manifest.dtype),
            "codec": asdict(manifest.codec),
            "coarse": asdict(manifest.coarse),
            "fine": asdict(manifest.fine),
            "defaults": {name: getattr(defaults, name) for name in KNOWN},
            "graphs": {**graphs, **{f"codec.{name}": graph for name, graph in codec.items()}},
        }

    def _graphs(
        self, folder: Path, graphs: Mapping[str, Graph], names: Sequence[str], place: str
    ) -> dict[str, Any]:
        found = {}
        for name in names:
            data = graphs[name].data
            found[name] = {
                "graph": self._file(folder, graphs[name].graph, place),
                "data": None if data is None else self._file(folder, data, place),
            }
        return found

    def _codec(self, codec: Codec) -> dict[str, Any]:
        """The graphs of a codec of core; models that share it share them."""
        name = codec.info.name
        if name not in self.codecs:
            place = f"codecs/{len(self.codecs)}"
            (self.site / place).mkdir(parents=True)
            paths = codec_graph.write(codec, self.site / place)
            self.codecs[name] = {
                part: {
                    "graph": _described(StoredFile.of(path), place),
                    "data": _described(StoredFile.of(path.with_name(f"{path.name}.data")), place),
                }
                for part, path in paths.items()
            }
        return self.codecs[name]

    def _file(self, folder: Path, stored: StoredFile, place: str) -> dict[str, Any]:
        shutil.copyfile(folder / stored.file, self.site / place / stored.file)
        return _described(stored, place)


def _described(stored: StoredFile, place: str) -> dict[str, Any]:
    return {**asdict(stored), "file": f"{place}/{stored.file}"}


def _named(family: str, title: str, folder: Path, place: str, dtype: str) -> dict[str, Any]:
    shipped = DEMO if folder in _folders(DEMO) else folder.resolve().name
    return {"family": family, "name": f"{title}, {shipped}", "folder": place, "dtype": dtype}

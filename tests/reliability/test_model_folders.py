"""Models from strangers: whatever stands in the place of a file or a setting, loading ends in a model or in
one error of ours, in bounded memory.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import math
import os
import random
import shutil
import signal
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

import audiogen_minigpt as minigpt
import audiogen_onnx
from audiogen_core import codecs, hub
from audiogen_core.errors import AudiogenError, OptionError
from audiogen_core.formats.safetensors_file import read_safetensors, write_safetensors
from audiogen_core.musicgen.files import Files, Places
from audiogen_core.training.lock import holder, lock
from audiogen_mlx import MusicGen, StableAudio, StableAudio3
from audiogen_onnx import Magnet, Vampnet, export_magnet
from support import lac
from support.figures import tell
from support.measured import peak_memory
from support.noise_files import CODEC, noise_files

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="pipes and alarms of POSIX")

FIXTURES = Path(__file__).parents[1] / "fixtures"
MEMORY = 256 << 20
"""Bytes that all attempts on one model may take above what the first took that went well."""

HANG = 60
"""Seconds after which loading is taken for something that does not end."""


class Model(NamedTuple):
    """How a model is put somewhere, and loaded from there."""

    put: Callable[[Path], object]
    load: Callable[[Path], object]


def folder_of(source: Path) -> Callable[[Path], object]:
    return lambda place: shutil.copytree(source, place)


def demo_of(package: str, name: str) -> Callable[[Path], object]:
    return folder_of(Path(str(files(package) / "data" / name)))


def put_encodec(place: Path) -> None:
    place.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(CODEC / name, place)


def load_codec(place: Path) -> object:
    return codecs.load(place, fetch=hub.here)


def put_dac(place: Path) -> None:
    place.mkdir()
    lac.save(place / "codec.pth", lac.TINY)


def put_frame(place: Path) -> None:
    place.mkdir()
    shutil.copy(str(files("audiogen_core") / "data" / "demo.safetensors"), place / "codec.safetensors")


def put_original(place: Path) -> None:
    place.mkdir()
    shutil.copy(CODEC / "original_encodec_state_dict.th", place / "codec.th")


def only_file(place: Path) -> object:
    (path,) = place.iterdir()
    return load_codec(path)


def put_codes(place: Path) -> None:
    minigpt.encode(noise_files(place.with_name("sound"), 2), place, codec=CODEC, workers=1)


def load_codes(place: Path) -> object:
    minigpt.verify(place)
    return minigpt.encode(place.with_name("sound"), place, codec=CODEC, workers=1)


class Enough(Exception):
    """Work has begun."""


def put_magnet(place: Path) -> None:
    source, tokenizer = FIXTURES / "magnet" / "magnet", FIXTURES / "musicgen" / "tokenizer"
    parts = Places(tokenizer=tokenizer, codec=source / "encodec-32k")
    export_magnet(Files(source, parts), place, check=False)


def put_stable_audio_3(place: Path) -> None:
    """Without what transformers alone reads of a tokenizer."""
    shutil.copytree(
        FIXTURES / "stable-audio-3" / "tiny-small",
        place,
        ignore=shutil.ignore_patterns("tokenizer_config.json", "special_tokens_map.json"),
    )


def until_it_begins(load: Callable[..., Any], **loading: Any) -> Callable[[Path], None]:
    """With its words, which are read when there is something to say."""

    def began(*_: object) -> None:
        raise Enough

    def loaded(place: Path) -> None:
        with suppress(Enough):
            load(place, fetch=hub.here, **loading).generate("slow piano", seconds=0.1, on_step=began)

    return loaded


def load_adapter(place: Path) -> object:
    model = FIXTURES / "musicgen" / "musicgen-mono"
    return Files(model, Places(lora=[str(place)], fetch=hub.here)).table


MODELS = {
    "EnCodec": Model(put_encodec, load_codec),
    "EnCodec, original": Model(put_original, only_file),
    "DAC": Model(put_dac, only_file),
    "frame codec": Model(put_frame, only_file),
    "MusicGen": Model(demo_of("audiogen_mlx", "demo-musicgen"), until_it_begins(MusicGen.load)),
    "Stable Audio": Model(
        demo_of("audiogen_mlx", "demo-stable-audio"), lambda at: StableAudio.load(at, fetch=hub.here)
    ),
    "VampNet": Model(
        demo_of("audiogen_onnx", "demo"), lambda at: Vampnet.load(at, threads=1, fetch=hub.here)
    ),
    "minigpt": Model(
        demo_of("audiogen_minigpt", "demo"),
        lambda at: minigpt.Generator.load(at, device="cpu", fetch=hub.here),
    ),
    "Stable Audio 3": Model(put_stable_audio_3, until_it_begins(StableAudio3.load)),
    "MusicGen in ONNX": Model(
        demo_of("audiogen_onnx", "demo-musicgen"), until_it_begins(audiogen_onnx.MusicGen.load, threads=1)
    ),
    "MAGNeT in ONNX": Model(put_magnet, until_it_begins(Magnet.load, threads=1)),
    "an adapter": Model(folder_of(FIXTURES / "lora" / "mono" / "pattern"), load_adapter),
    "codes": Model(put_codes, load_codes),
}


QUICK = ("an adapter", "EnCodec", "EnCodec, original", "DAC", "frame codec", "codes")


def some_slow(names: Iterable[str]) -> list[Any]:
    """The names, all but the quick ones with the mark of slow tests."""
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in names]


class Hanging(BaseException):
    """Not to be caught by what is tried."""


@contextmanager
def awake() -> Iterator[None]:
    def ring(*_: object) -> None:
        raise Hanging

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(HANG)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def loaded(model: Model, place: Path) -> bool:
    """Whether a model can be loaded. Anything but that and an error of ours ends the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with awake():
                model.load(place)
        except AudiogenError as error:
            assert str(error).strip()
            return False
    return True


# Something else in the place of a file


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def nowhere(path: Path) -> None:
    path.symlink_to("nowhere")


def circle(path: Path) -> None:
    path.symlink_to(path)


def folder(path: Path) -> None:
    path.mkdir()


def empty(path: Path) -> None:
    path.touch()


def noise(path: Path) -> None:
    path.write_bytes(random.Random(1).randbytes(5000))


def deep(path: Path) -> None:
    path.write_text("[" * 200_000)


def endless(path: Path) -> None:
    """A file of a tebibyte that takes no room."""
    with path.open("wb") as file:
        file.truncate(1 << 40)


INSTEAD = (pipe, device, nowhere, circle, folder, empty, noise, deep, endless)


@pytest.mark.parametrize("name", some_slow(MODELS))
def test_something_else_in_the_place_of_a_file(name: str, tmp_path: Path) -> None:
    model, place = MODELS[name], tmp_path / "model"
    model.put(place)
    assert loaded(model, place)
    peak_memory(reset=True)
    tried, refused, before = 0, 0, peak_memory()
    for path in sorted(path for path in place.rglob("*") if path.is_file()):
        if path.name == "MODEL_CARD.md":
            continue
        content, codes = path.read_bytes(), name == "codes"
        for instead in INSTEAD:
            path.unlink()
            instead(path)
            tried, refused = tried + 1, refused + (not loaded(model, place))
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                path.unlink(missing_ok=codes)
            path.write_bytes(content)
    assert loaded(model, place), "what is as it was loads as it did"
    assert refused > 0.8 * tried
    assert peak_memory() - before < MEMORY
    tell(
        "models from strangers",
        f"pipes, devices, links, folders, a tebibyte and more in place of the files of {name}",
        tried,
        f"{refused} refused, the others did without",
        promised="a model or one error of ours, no hang, below 256 MiB",
    )


# Something else in the place of a setting

ODD: tuple[Any, ...] = (
    math.inf, -math.inf, math.nan, 1e30, -1, 0, 0.5, 1 << 30, 10**9, (1 << 63) - 1, 1 << 200, True, None, "",
    "x", "../../../etc/passwd", "/dev/zero", [], [[]], {}, [0], [-1], [10**9], [math.nan], {"x": {}},
)  # fmt: skip
"""What no setting expects."""


def places(tree: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The ways to all values of a tree; of lists to the first two."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree[:2]) if isinstance(tree, list) else ()
    for key, value in inner:
        if not isinstance(value, torch.Tensor) and key != "state_dict":
            yield (*at, key)
            yield from places(value, (*at, key))


def changed(tree: Any, at: tuple[Any, ...], value: Any) -> Any:
    """A copy of a tree with one value changed."""
    tree = copy.deepcopy(tree)
    inner = tree
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = value
    return tree


class Settings(NamedTuple):
    """A file with settings: how they are read out of it, and written into it."""

    file: str
    read: Callable[[Path], Any]
    write: Callable[[Path, Any], object]


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, tree: Any) -> None:
    path.write_text(json.dumps(tree), encoding="utf-8")


def write_state(path: Path, tree: Any) -> None:
    """With its size and hash, as whoever changes it would."""
    write_json(path, tree)
    manifest, content = read_json(path.with_name("manifest.json")), path.read_bytes()
    manifest["files"][path.name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    write_json(path.with_name("manifest.json"), manifest)


def read_frame(path: Path) -> Any:
    facts = read_safetensors(path)[1]
    (key,) = (key for key, text in facts.items() if text.startswith("{"))
    return {key: json.loads(facts[key])}


def write_frame(path: Path, tree: Any) -> None:
    tensors, facts = read_safetensors(str(files("audiogen_core") / "data" / "demo.safetensors"))
    write_safetensors(path, tensors, facts | {key: json.dumps(value) for key, value in tree.items()})


def read_lines(path: Path) -> Any:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_lines(path: Path, tree: Any) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in tree), encoding="utf-8")


def read_torch(path: Path) -> Any:
    return torch.load(path, weights_only=False)


def write_torch(path: Path, tree: Any) -> None:
    torch.save(tree, path)


SETTINGS = {
    "EnCodec": [Settings("config.json", read_json, write_json)],
    "DAC": [Settings("codec.pth", read_torch, write_torch)],
    "frame codec": [Settings("codec.safetensors", read_frame, write_frame)],
    "MusicGen": [Settings(name, read_json, write_json) for name in ("config.json", "prompts.json")],
    "Stable Audio": [
        Settings(name, read_json, write_json) for name in ("model_config.json", "t5/config.json")
    ],
    "VampNet": [Settings("manifest.json", read_json, write_json)],
    "Stable Audio 3": [
        Settings(name, read_json, write_json) for name in ("model_config.json", "t5gemma-b-b-ul2/config.json")
    ],
    "MusicGen in ONNX": [Settings("manifest.json", read_json, write_json)],
    "MAGNeT in ONNX": [Settings("manifest.json", read_json, write_json)],
    "an adapter": [Settings("adapter_config.json", read_json, write_json)],
    "minigpt": [
        Settings("state.json", read_json, write_state),
        Settings("manifest.json", read_json, write_json),
    ],
    "codes": [
        Settings("meta.json", read_json, write_json),
        Settings("plan.json", read_json, write_json),
        Settings("shard-00000.jsonl", read_lines, write_lines),
    ],
}


@pytest.mark.parametrize(
    "share", [pytest.param(0.02, id="some"), pytest.param(1.0, id="all", marks=pytest.mark.soak)]
)
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", some_slow(SETTINGS))
def test_something_else_in_the_place_of_a_setting(name: str, share: float, tmp_path: Path) -> None:
    model, place, draw = MODELS[name], tmp_path / "model", random.Random(name)
    model.put(place)
    assert loaded(model, place)
    peak_memory(reset=True)
    tried, refused, before = 0, 0, peak_memory()
    kept = shutil.copytree(place, tmp_path / "kept")
    for settings in SETTINGS[name]:
        path = place / settings.file
        tree = settings.read(path)
        for at in places(tree):
            for value in ODD:
                if draw.random() < share:
                    settings.write(path, changed(tree, at, value))
                    tried, refused = tried + 1, refused + (not loaded(model, place))
        shutil.rmtree(place)
        shutil.copytree(kept, place)
    assert refused > 0.3 * tried
    assert peak_memory() - before < MEMORY
    tell(
        "models from strangers",
        f"settings of {name} of wrong type and range",
        tried,
        f"{refused} refused, {tried - refused} of no consequence",
        promised="a model or one error of ours, no hang, below 256 MiB",
    )


# Locks


@pytest.mark.parametrize("instead", INSTEAD)
def test_something_else_in_the_place_of_a_lock(instead: Callable[[Path], None], tmp_path: Path) -> None:
    instead(tmp_path / ".lock")
    with awake():
        assert holder(tmp_path) is None
        try:
            with lock(tmp_path):
                pass
        except OptionError:
            assert instead in (pipe, device, nowhere, circle, folder)


def test_locks_that_name_nobody(tmp_path: Path) -> None:
    for pid, host in itertools.product((7, *ODD), ("elsewhere", *ODD)):
        write_json(tmp_path / ".lock", {"pid": pid, "host": host})
        if type(pid) is int and abs(pid) < 1 << 128 and isinstance(host, str):
            with pytest.raises(OptionError, match="in use"), lock(tmp_path):
                pass
        else:
            assert holder(tmp_path) is None
            with lock(tmp_path):
                pass


def test_a_lock_that_is_a_link_leaves_what_it_leads_to(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(mine)
    with pytest.raises(OptionError, match="a link"), lock(tmp_path / "run"):
        pass
    assert mine.read_text() == "mine"

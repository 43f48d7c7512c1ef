"""The recipe of the demo model: from a tiny corpus over twenty updates to a folder that generates."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from audiogen_core.dataset.shards import Meta
from audiogen_core.sampling import Sampling
from audiogen_minigpt import checkpoint
from audiogen_minigpt.dataset import Dataset
from audiogen_minigpt.generate import Generator
from audiogen_minigpt.settings import Settings
from audiogen_minigpt.train import train
from support import recipes

RECIPE = recipes.RECIPES / "demo_minigpt"
TINY = Settings(
    {"steps": 20, "batch": 2, "log_every": 5, "eval_every": 10, "save_every": 10, "eval_windows": 2},
    {"layers": 1, "width": 16, "heads": 2, "context": 32},
)


@pytest.fixture(scope="module")
def recipe() -> Iterator[recipes.Modules]:
    with recipes.recipe("demo_minigpt", "demo_music") as modules:
        yield modules


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    draws = np.random.default_rng(0)
    for name, pieces in (("train", 5), ("held", 2)):
        np.savez(folder / f"{name}.npz", codes=draws.integers(0, 1024, (pieces, 8, 90)).astype(np.int16))
        lines = [json.dumps({"tempo": ("slow", "medium")[index % 2]}) for index in range(pieces)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


def trained(data: Path, run: Path) -> Path:
    """A run by the recipe's settings, but tiny."""
    given = (
        Settings({"data": str(data), "run": str(run)}).over(TINY).over(Settings.read(RECIPE / "config.toml"))
    )
    train(given.config(Meta.load(data).facts))
    return run


@pytest.fixture(scope="module")
def run(recipe: recipes.Modules, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("recipe")
    recipe.data.write(corpus, place / "data", 4)
    return trained(place / "data", place / "run")


def test_the_corpus_becomes_a_folder_of_codes(corpus: Path, run: Path) -> None:
    with np.load(corpus / "train.npz") as file:
        codes = file["codes"]
    data = Dataset.open(run.parent / "data", split="train")
    assert (len(data.tracks), data.frames, data.codebooks) == (5, 450, 4)
    np.testing.assert_array_equal(data.track(2), codes[2, :4].T)
    assert Dataset.open(run.parent / "data", split="val").frames == 180


def test_pieces_of_one_tempo(recipe: recipes.Modules, corpus: Path, tmp_path: Path) -> None:
    assert recipe.data.write(corpus, tmp_path / "data", 4, "medium") == 2 * 90 + 90
    with np.load(corpus / "train.npz") as file:
        codes = file["codes"]
    data = Dataset.open(tmp_path / "data", split="train")
    np.testing.assert_array_equal(data.track(1), codes[3, :4].T)


def test_the_same_recipe_makes_the_same_model(run: Path, tmp_path: Path) -> None:
    again = trained(run.parent / "data", tmp_path / "again")
    first, second = (checkpoint.find(path) for path in (run, again))
    assert first.step == second.step == 20
    assert checkpoint.write_light(first, tmp_path / "a") and checkpoint.write_light(second, tmp_path / "b")
    assert checkpoint.read(tmp_path / "a").revision == checkpoint.read(tmp_path / "b").revision


def test_the_exported_folder_generates(
    recipe: recipes.Modules, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter = recipe.export
    monkeypatch.setattr("sys.argv", ["export.py", str(run), "-o", str(tmp_path / "demo")])
    exporter.main()
    generator = Generator.load(tmp_path / "demo", device="cpu")
    assert generator.sampling == exporter.SAMPLING
    assert generator.generate(0.5, sampling=Sampling(seed=1)).samples.shape == (1, 12_000)


@pytest.mark.parametrize("prompted", [False, True])
def test_clips_for_the_judge(recipe: recipes.Modules, run: Path, tmp_path: Path, prompted: bool) -> None:
    clips = recipe.make_clips
    generator = Generator.load(run, device="cpu")
    clips.make(generator, tmp_path / "clips", 2, 0.4, Sampling(), prompted)
    rows = [json.loads(line) for line in (tmp_path / "clips" / "captions.jsonl").read_text().splitlines()]
    assert [row["path"] for row in rows] == ["0.wav", "1.wav"]
    assert all((tmp_path / "clips" / row[key]).is_file() for row in rows for key in ("path", "codes"))
    assert [row.get("start") for row in rows] == [4.0 if prompted else None] * 2
    assert all(("style" in row) == prompted for row in rows)

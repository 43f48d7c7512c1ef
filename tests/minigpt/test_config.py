"""The model config: read strictly, written exactly."""

from __future__ import annotations

import dataclasses

import pytest

from audiogen_core.errors import OptionError
from audiogen_core.settings import from_mapping, read_toml
from audiogen_minigpt.config import SIZES, ModelConfig


@dataclasses.dataclass(frozen=True)
class Outer:
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    rate: float = 0.5
    steps: int | None = None
    loud: bool = False


@pytest.mark.parametrize("name", [*SIZES, "seed"])
def test_every_size_survives_json(name: str) -> None:
    config = ModelConfig.size(name)
    assert ModelConfig.from_json(config.to_json()) == config


def test_changes_to_a_size() -> None:
    assert ModelConfig.size("tiny", layout="first").codebooks == 1
    assert ModelConfig.size("seed", context=64).context == 64


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"layer": 3}, "did you mean layers"),
        ({"layers": "3"}, "layers must be int, got '3'"),
        ({"layers": True}, "layers must be int"),
        ({"dropout": 1.0}, "dropout must lie"),
        ({"layers": 0}, "layers must be at least 1"),
        ({"width": 100, "heads": 3}, "cannot be split"),
        ({"preset": "modrn"}, "did you mean modern"),
        ({"layout": "delayed"}, "did you mean delay"),
        ({"layout": "first"}, "one codebook, got codebooks = 4"),
        ({"context": 7}, "too short for 4 codebooks"),
    ],
)
def test_bad_settings_are_named(table: dict[str, object], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        ModelConfig.from_dict(table)


def test_unknown_size_and_broken_json() -> None:
    with pytest.raises(OptionError, match="did you mean tiny"):
        ModelConfig.size("tinny")
    with pytest.raises(OptionError, match=r"here\.json: not JSON"):
        ModelConfig.from_json("{", "here.json")
    with pytest.raises(OptionError, match="expected a table"):
        ModelConfig.from_json("[]")


def test_nested_tables_and_whole_numbers_for_floats(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "settings.toml"
    path.write_text("rate = 1\nsteps = 4\n[model]\nlayers = 2\n", encoding="utf-8")
    outer = from_mapping(Outer, read_toml(path), str(path))
    assert outer == Outer(ModelConfig(layers=2), 1.0, 4)
    assert isinstance(outer.rate, float)
    with pytest.raises(OptionError, match="model: unknown setting 'layrs'"):
        from_mapping(Outer, {"model": {"layrs": 2}}, "here")
    with pytest.raises(OptionError, match="steps must be int or NoneType"):
        from_mapping(Outer, {"steps": "all"}, "here")
    with pytest.raises(OptionError, match="loud must be bool"):
        from_mapping(Outer, {"loud": 1}, "here")


def test_missing_and_broken_toml(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(OptionError, match="no such file"):
        read_toml(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("= 3", encoding="utf-8")
    with pytest.raises(OptionError, match="not readable as TOML"):
        read_toml(tmp_path / "bad.toml")

"""The doctors of all packages: the same shape, every command, and what to do about what is missing."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from audiogen_core import doctor
from audiogen_core.doctor import Extra, Subject
from support.commands import call
from support.programs import PROGRAMS, program

SHAPE = {
    "package": str,
    "python": str,
    "platform": str,
    "packages": dict,
    "optional": dict,
    "cpu": dict,
    "devices": list,
    "cache": dict,
    "commands": dict,
    "problems": list,
}


def subject_of(name: str) -> Subject:
    found: Any = import_module(f"{name.replace('-', '_')}.doctor")
    return found.CORE if name == "audiogen-core" else found.SUBJECT


@pytest.mark.parametrize("name", PROGRAMS)
def test_all_doctors_say_the_same_things(name: str) -> None:
    result = call(program(name), "doctor", "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    for key, kind in SHAPE.items():
        assert isinstance(facts[key], kind), key
    assert facts["devices"]
    assert None not in [facts["packages"][each] for each in subject_of(name).required]
    assert set(facts["commands"]) >= set(doctor.SIBLINGS) - {facts["package"]}


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_command_is_named(name: str) -> None:
    commands = program(name).commands
    subject = subject_of(name)
    optional = [use for extra in subject.optional.values() for use in extra.for_commands]
    named = {use.split()[0] for use in (*doctor.names(subject), *optional)}
    assert named == set(commands) - {"doctor"}
    for use in optional:
        command, *options = use.split()
        known = {option for each in commands[command].params for option in each.opts}
        assert {option for option in options if option.startswith("-")} <= known


SUBJECT = Subject(
    "audiogen-thing",
    ("numpy", "absent"),
    {"torch": Extra("pip install torch", ("sing --loud",)), "gone": Extra("pip install gone", ("hum",))},
    ("sing",),
)


def test_what_is_missing_is_told_with_the_line_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "installed", lambda name: None if name in ("gone", "audiogen-mlx") else "1.0")
    lines = dict(doctor.commands(SUBJECT))
    assert lines["audiogen-thing sing"] == lines["audiogen-thing sing --loud"] == "ready"
    assert lines["audiogen-thing hum"] == "needs gone: pip install gone"
    assert lines["audiogen-mlx"].startswith("not installed (musicgen")
    assert lines["audiogen-mlx"].endswith("pip install audiogen-mlx")
    assert "see audiogen-onnx doctor" in lines["audiogen-onnx"]


def test_what_has_no_model_here_is_not_called_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIOGEN_ONNX_CACHE", str(tmp_path / "exported"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))

    def lines(package: str) -> dict[str, str]:
        told: dict[str, str] = json.loads(call(program(package), "doctor", "--json").stdout)["commands"]
        return told

    away = "no model of it is here yet: one is fetched when it is first used; {} models shows which"
    mlx, onnx = lines("audiogen-mlx"), lines("audiogen-onnx")
    assert mlx["audiogen-mlx musicgen"] == mlx["audiogen-mlx stable-audio"] == "ready"  # there is a demo
    assert mlx["audiogen-mlx stable-audio-3"] == away.format("audiogen-mlx")
    assert onnx["audiogen-onnx vamp"] == "ready"
    assert onnx["audiogen-onnx magnet"] == away.format("audiogen-onnx")
    assert onnx["audiogen-onnx beats"].startswith("no beat tracker is here yet: vampnet, which has one, is")
    folder = tmp_path / "exported" / "vampnet-0123456789ab"
    folder.mkdir(parents=True)
    (folder / "beats.onnx").touch()
    assert lines("audiogen-onnx")["audiogen-onnx beats"] == "ready"


def test_nothing_is_ready_without_what_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "installed", lambda name: None if name == "absent" else "1.0")
    assert dict(doctor.commands(SUBJECT))["audiogen-thing sing"] == "needs absent: pip install audiogen-thing"
    assert "absent is not installed; install audiogen-thing again" in doctor.problems(SUBJECT)


def test_a_command_that_needs_two_things_names_the_one_that_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    two = Subject("a", (), {"x": Extra("get x", ("go",)), "y": Extra("get y", ("go",))}, ())
    for missing in ("x", "y"):
        monkeypatch.setattr(doctor, "installed", lambda name, gone=missing: None if name == gone else "1.0")
        assert dict(doctor.commands(two))["a go"] == f"needs {missing}: get {missing}"


def test_the_slow_matrix_library_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    from audiogen_mlx import blas
    from audiogen_mlx.doctor import report

    monkeypatch.setattr(blas, "describe", lambda *, measure: {"hint": "install a fast one"})
    assert report()["problems"][-1] == "install a fast one"

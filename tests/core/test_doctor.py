"""The doctors of all packages: the same shape, every command, and what to do about what is missing."""

from __future__ import annotations

import json
from importlib import import_module
from typing import Any

import pytest
import typer

from audiogen_core import doctor
from audiogen_core.doctor import Extra, Subject
from support.commands import call

PROGRAMS = {
    "audiogen_core": ("audiogen_core.main", "commands"),
    "audiogen_mlx": ("audiogen_mlx.cli", "cli"),
    "audiogen_onnx": ("audiogen_onnx.cli", "cli"),
    "audiogen_minigpt": ("audiogen_minigpt.cli", "commands"),
}
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


def commands_of(package: str) -> typer.Typer:
    module, name = PROGRAMS[package]
    return getattr(import_module(module), name)


def subject_of(package: str) -> Subject:
    found: Any = import_module(f"{package}.doctor")
    return found.CORE if package == "audiogen_core" else found.SUBJECT


@pytest.mark.parametrize("package", PROGRAMS)
def test_all_doctors_say_the_same_things(package: str) -> None:
    result = call(commands_of(package), "doctor", "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    for name, kind in SHAPE.items():
        assert isinstance(facts[name], kind), name
    assert facts["devices"]
    assert None not in [facts["packages"][name] for name in subject_of(package).required]
    assert set(facts["commands"]) >= set(doctor.SIBLINGS) - {facts["package"]}


@pytest.mark.parametrize("package", PROGRAMS)
def test_every_command_is_named(package: str) -> None:
    program = typer.main.get_command(commands_of(package))
    subject = subject_of(package)
    optional = [name for extra in subject.optional.values() for name in extra.for_commands]
    named = {name.split()[0] for name in (*subject.commands, *optional)}
    assert named == set(program.commands) - {"doctor"}
    for name in optional:
        command, *options = name.split()
        known = {option for each in program.commands[command].params for option in each.opts}
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

"""Settings: what each reader takes and refuses, and how it says so; bombs cost neither time nor memory."""

from __future__ import annotations

import json
import os
import time
import tracemalloc
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from audiogen_core.errors import CodesError, ModelError, OptionError
from audiogen_core.settings import (
    MAX_BYTES,
    MAX_DEPTH,
    Section,
    from_mapping,
    parse_json,
    parse_yaml,
    read_json,
    read_toml,
    read_yaml,
    resolved,
)


def written(folder: Path, text: str, name: str = "settings.json") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_each_kind_of_file_is_read(tmp_path: Path) -> None:
    wanted = {"a": {"b": [1, 2.5, "x", True]}}
    assert read_json(written(tmp_path, json.dumps(wanted))) == wanted
    assert read_toml(written(tmp_path, 'a.b = [1, 2.5, "x", true]', "s.toml")) == wanted
    assert read_yaml(written(tmp_path, "a: {b: [1, 2.5, x, true]}", "s.yaml")) == wanted
    assert parse_json("[1]", "here") == [1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not readable as JSON: not JSON"),
        ("[]", "expected a JSON object, found list"),
        ("\ufeff{}", "not JSON"),
        ('{"a": 1e999}', "the number inf is not finite"),
        ('{"a": NaN}', "the number nan is not finite"),
        ('{"a": ' + "9" * 60 + "}", "a number that is too large"),
        ('{"a": ' + "9" * 5000 + "}", "not JSON"),
        ('{"a": ' + "[" * 100 + "]" * 100 + "}", "nested more than 64 deep"),
        ("[" * 200_000, "not JSON"),
        ("[" + "0," * 6_000_000 + "0]", "more JSON than settings have"),
    ],
)
def test_json_that_is_none_or_too_much(tmp_path: Path, text: str, words: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ModelError, match=words) as caught:
        read_json(path)
    assert str(caught.value).startswith(str(path))
    with pytest.raises(CodesError):
        read_json(path, CodesError)


def test_numbers_that_are_not_finite_when_asked_for(tmp_path: Path) -> None:
    assert read_json(written(tmp_path, '{"loss": Infinity}'), finite=False) == {"loss": float("inf")}


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.json: cannot be read \(no such file\)"):
        read_json(tmp_path / "none.json")
    with pytest.raises(OptionError, match="no regular file"):
        read_toml(tmp_path)
    with pytest.raises(ModelError, match="cannot be read"):
        read_json("zero\0byte.json")
    (tmp_path / "latin.json").write_bytes(b'{"a": "\xe9"}')
    with pytest.raises(ModelError, match="not readable as JSON"):
        read_json(tmp_path / "latin.json")
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(ModelError, match="no file of settings"):
        read_json(tmp_path / "large.json")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with a name on this system")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(ModelError, match="no regular file"):
        read_json(tmp_path / "pipe.json")


LONG_KEY = ".".join("a" * 100_000)
TOML = {
    "no key": "= 3",
    "twice": "a = 1\na = 2",
    "infinite": "a = inf",
    "deep": f"a = {'[' * 100}{']' * 100}",
    "a key without end": f"{LONG_KEY} = 1",
    "a table's key without end": f"[{LONG_KEY}]",
    "a key in another's": f"x = {{{LONG_KEY} = 1}}",
    "long keys": "\n".join(f"{LONG_KEY[:500]}.a{index} = 1" for index in range(500)),
}


@pytest.mark.parametrize("text", TOML.values(), ids=TOML)
def test_toml_that_is_none_or_too_much(tmp_path: Path, text: str) -> None:
    """In a time that does not grow with the square of a key."""
    began = time.process_time()
    with pytest.raises(OptionError, match="not readable as TOML"):
        read_toml(written(tmp_path, text))
    assert time.process_time() - began < 2


def laugh(line: str) -> str:
    """Ten aliases of ten aliases, ten times over."""
    first = "a0: &a0 {x: 1}\n" if "<<" in line else "a0: &a0 [x, x]\n"
    return first + "".join(line.format(n=n, all=", ".join([f"*a{n - 1}"] * 10)) for n in range(1, 10))


@pytest.mark.parametrize(
    "text",
    [
        laugh("a{n}: &a{n} [{all}]\n"),
        laugh("a{n}: &a{n} {{<<: [{all}]}}\n"),
        "a: &a [*a]",
        "a: &a {b: *a}",
        "a: 9999-99-99",
        "a: " + "1" * 5000,
        "a: .inf",
        "a: 1" + ":59" * 60_000 + ".5",
        "a: " + "[" * 500 + "]" * 500,
        "a: [",
        "a: !!python/object/apply:os.system [true]",
        "- 1",
        "",
        "a: " + "x" * 300_000,
    ],
)
def test_yaml_that_is_none_or_too_much(text: str) -> None:
    tracemalloc.start()
    started = time.process_time()
    with pytest.raises(ModelError, match=r"^here: "):
        parse_yaml(text, "here")
    assert time.process_time() - started < 20
    assert tracemalloc.get_traced_memory()[1] < 200e6
    tracemalloc.stop()


def test_aliases_of_yaml_in_measure() -> None:
    tree = parse_yaml("a: &a {x: 1}\nb: *a\nc: {<<: *a, y: 2}", "here")
    assert tree == {"a": {"x": 1}, "b": {"x": 1}, "c": {"x": 1, "y": 2}}


def test_references() -> None:
    tree = {
        "a": {"b": 3, "c": None},
        "d": ["${a.b}", "${a}"],
        "e": "${d}",
        "f": "${oc.env:HOME}",
        "g": "${a.c}",
    }
    done = resolved({**tree, "h": "${x.y}"}, "here")
    assert done["e"] == [3, {"b": 3, "c": None}]
    assert (done["f"], done["g"], done["h"]) == ("${oc.env:HOME}", None, "${x.y}")
    assert resolved(tree, "here", only=["d", "x"]) == {"d": [3, {"b": 3, "c": None}]}
    with pytest.raises(ModelError, match=r"here refers to \$\{x.y\}, which is not there"):
        resolved({"h": "${x.y}"}, "here", only=["h"])


@pytest.mark.parametrize(
    "tree",
    [
        {"a": "${a}"},
        {"a": "${b}", "b": ["${a}"]},
        {"a0": [1], **{f"a{n}": [f"${{a{n - 1}}}"] * 10 for n in range(1, 10)}},
    ],
)
def test_references_that_do_not_end(tree: dict[str, Any]) -> None:
    with pytest.raises(CodesError, match="round in a circle or grow without end"):
        resolved(tree, "here", CodesError)


def test_a_section_is_read_key_by_key(tmp_path: Path) -> None:
    values = {"layers": 3, "rate": 1, "name": "x", "below": {"on": True}, "tags": ["a"], "sizes": [1, 2]}
    section = Section.read(written(tmp_path, json.dumps({**values, "left": 0})))
    assert (section.count("layers"), section.take("rate", float), section.take("name", str)) == (3, 1.0, "x")
    below = section.section("below")
    assert below.take("on", bool) is True
    below.finish()
    assert section.names("tags") == ("a",) and section.names("none") == ()
    assert section.many("sizes", float) == (1.0, 2.0) and section.many("none", int, (4,)) == (4,)
    assert "left" in section
    with pytest.raises(ModelError, match=r"settings\.json: unknown settings: left"):
        section.finish()
    section.ignore("left")
    section.finish()


@pytest.mark.parametrize(
    ("read", "words"),
    [
        (lambda s: s.take("none", int), "here: none is missing"),
        (lambda s: s.take("name", int), "here: name must be int, found 'x'"),
        (lambda s: s.take("on", int), "here: on must be int, found True"),
        (lambda s: s.take("rate", int), r"here: rate must be int, found 1\.5"),
        (lambda s: s.count("zero"), "here: zero must be 1 or more, found 0"),
        (lambda s: s.count("huge"), "here: huge must be at most"),
        (lambda s: s.count("rate2", most=3), "here: rate2 must be at most 3, found 4"),
        (lambda s: s.many("mixed", int), r"here: mixed\[1\] must be int, found '2'"),
        (lambda s: s.many("name", str), "here: name must be a list, found 'x'"),
        (lambda s: s.many("null", int, (1,)), "here: null is missing"),
        (lambda s: s.names("name"), "here: name must be a list of names"),
        (lambda s: s.section("name"), "here: name: expected a JSON object, found str"),
        (lambda s: s.section("none"), "here: none is missing"),
        (lambda s: s.expect("name", "y", "z"), "name 'x' is not supported here, only 'y' or 'z'"),
        (lambda s: s.expect("on", 1), "on True is not supported"),
    ],
)
def test_what_a_section_refuses(read: Any, words: str) -> None:
    values = {
        "name": "x",
        "on": True,
        "rate": 1.5,
        "zero": 0,
        "huge": 1 << 40,
        "mixed": [1, "2"],
        "null": None,
        "rate2": 4,
    }
    with pytest.raises(ModelError, match=words):
        read(Section(values, "here"))


@dataclass(frozen=True)
class Part:
    size: int
    name: str = ""


@dataclass(frozen=True)
class Whole:
    rate: float
    part: Part | None = None
    parts: tuple[Part, ...] = ()
    pair: tuple[int, float] = (1, 1.0)
    names: list[str] = field(default_factory=list)
    table: Mapping[str, Part] = field(default_factory=dict)
    free: Mapping[str, Any] = field(default_factory=dict)
    kind: Literal["a", "b"] = "a"
    on: bool = False


def test_a_dataclass_from_a_table() -> None:
    table = {
        "rate": 1,
        "part": {"size": 2},
        "parts": [{"size": 3}],
        "pair": [4, 5],
        "names": ["x"],
        "table": {"k": {"size": 6, "name": "n"}},
        "free": {"z": [1, {"y": None}]},
        "kind": "b",
    }
    whole = from_mapping(Whole, table, "here")
    assert whole == Whole(
        1.0, Part(2), (Part(3),), (4, 5.0), ["x"], {"k": Part(6, "n")}, {"z": [1, {"y": None}]}, "b"
    )
    assert isinstance(whole.rate, float) and isinstance(whole.pair[1], float)
    assert from_mapping(Whole, {"rate": 1.0, "part": None}, "here") == Whole(1.0)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"raet": 1}, "here: unknown setting 'raet'; did you mean rate"),
        ({}, "here: settings are missing: rate"),
        ({"rate": True}, "here: rate must be float, got True"),
        ({"rate": 1, "part": {"siz": 2}}, "here: part: unknown setting 'siz'"),
        ({"rate": 1, "part": 3}, "here: part: expected a table of settings, got int"),
        ({"rate": 1, "parts": [{"size": "2"}]}, r"here: parts\[0\]: size must be int, got '2'"),
        ({"rate": 1, "pair": [1]}, "here: pair must be"),
        ({"rate": 1, "names": [2]}, r"here: names\[0\] must be str, got 2"),
        ({"rate": 1, "table": {"k": 1}}, "here: table: k: expected a table"),
        ({"rate": 1, "kind": "c"}, "here: kind must be 'a' or 'b', got 'c'"),
        ({"rate": 1, "on": 1}, "here: on must be bool, got 1"),
        ([], "here: expected a table of settings, got list"),
    ],
)
def test_tables_that_do_not_fit(table: Any, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        from_mapping(Whole, table, "here")
    with pytest.raises(CodesError, match=words):
        from_mapping(Whole, table, "here", CodesError)


def test_what_is_within_the_bounds_is_read() -> None:
    deep: Any = 0
    for _ in range(MAX_DEPTH):
        deep = [deep]
    assert parse_json(json.dumps(deep), "here") == deep
    many = [{"path": f"song {n}.wav", "size": n, "split": "train"} for n in range(100_000)]
    assert parse_json(json.dumps(many), "here") == many

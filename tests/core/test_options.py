"""Options described once: what is accepted, what is said of the rest, and what is read from a description."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import jsonschema
import numpy as np
import pytest

from audiogen_core import cli, jobs
from audiogen_core.audio import Audio
from audiogen_core.commands import command
from audiogen_core.errors import OptionError
from audiogen_core.options import Clips, Described, argument, audio, described, hidden, option, place, schema
from support.commands import call

CLIP = Audio(np.zeros((1, 100), np.float32), 8_000)


@dataclass(frozen=True)
class Sample(Described):
    prompt: Annotated[str, argument("What to hear.")]
    seconds: Annotated[float | None, option("Its length.", "-s", unit="s", gt=0, le=60)] = None
    steps: Annotated[int, option("How often.", ge=1)] = 8
    share: Annotated[float, option("Of all.", ge=0, le=1)] = 0.5
    heat: Annotated[float | tuple[float, ...] | None, option("Once, or for each.", ge=0)] = None
    span: Annotated[tuple[float, float] | None, option("From and to.")] = None
    spans: Annotated[tuple[tuple[float, float], ...], option("Several.")] = ()
    roll: Annotated[int | Literal["random"], option("Frames, or random.")] = "random"
    kind: Annotated[Literal["a", "b"], option("Which.")] = "a"
    loud: Annotated[bool, option("Louder.")] = False
    clip: Annotated[Clips | None, audio("A clip.", "--from", many=True)] = None
    part: Annotated[str | None, place("Where it is.")] = None
    noise: Annotated[Any, hidden("An array.")] = None


GOOD: list[tuple[str, Any, Any]] = [
    ("seconds", 4, 4.0),
    ("seconds", np.float32(2.5), 2.5),
    ("seconds", None, None),
    ("steps", 3.0, 3),
    ("steps", np.int64(3), 3),
    ("heat", 1, 1.0),
    ("heat", [0.5, 1], (0.5, 1.0)),
    ("heat", np.array([0.5, 1]), (0.5, 1.0)),
    ("span", [1, 2], (1.0, 2.0)),
    ("spans", [[1, 2], [3, 4]], ((1.0, 2.0), (3.0, 4.0))),
    ("roll", -3, -3),
    ("roll", "random", "random"),
    ("kind", "b", "b"),
    ("loud", np.bool_(True), True),
    ("clip", "a.wav", "a.wav"),
    ("clip", CLIP, CLIP),
    ("clip", [CLIP, None], [CLIP, None]),
    ("part", Path("there"), "there"),
    ("noise", {1: 2}, {1: 2}),
]


@pytest.mark.parametrize(("name", "value", "kept"), GOOD)
def test_what_is_accepted(name, value, kept):
    chosen = getattr(Sample(**{"prompt": "x", name: value}), name)
    assert chosen == kept and type(chosen) is type(kept)


BAD: list[tuple[str, Any, str]] = [
    ("prompt", 3, "prompt must be a text, got 3"),
    ("prompt", None, "prompt must be a text, got None"),
    ("prompt", "a\0b", "zero character"),
    ("seconds", 0, "seconds must be more than 0 and at most 60, got 0"),
    ("seconds", math.nan, "seconds must be more than 0 and at most 60, got nan"),
    ("seconds", math.inf, "at most 60"),
    ("seconds", 10**400, "at most 60"),
    ("seconds", "long", "seconds must be a number of more than 0"),
    ("seconds", True, "must be a number"),
    ("seconds", 1j, "must be a number"),
    ("seconds", [1], "must be a number"),
    ("steps", 0, "steps must be a whole number of 1 or more, got 0"),
    ("steps", 2.5, "must be a whole number"),
    ("steps", 1e30, "must be a whole number"),
    ("steps", 10**30, "must be a whole number"),
    ("steps", None, "must be a whole number"),
    ("share", 1.5, "share must be from 0 to 1, got 1.5"),
    ("heat", "hot", "heat must be a number"),
    ("heat", [1, -1], "heat must be 0 or more, got -1"),
    ("heat", {}, "must be a list"),
    ("span", (1, 2, 3), "two numbers"),
    ("span", "1:2", "two numbers"),
    ("spans", 5, "must be a list"),
    ("spans", [(1,)], "two numbers"),
    ("roll", "often", "roll must be a whole number or 'random', got 'often'"),
    ("roll", 2.5, "whole number"),
    ("kind", "c", "kind must be one of a, b, got 'c'"),
    ("kind", ["a"], "must be one of"),
    ("loud", "yes", "loud must be true or false"),
    ("loud", 1, "loud must be true or false"),
    ("clip", 3, "clip must be a clip"),
    ("clip", np.zeros((1, 3)), "clip must be a clip"),
    ("clip", [3], "clip must be a clip"),
    ("part", 3, "part must be a path"),
]


@pytest.mark.parametrize(("name", "value", "message"), BAD)
def test_one_sentence_for_what_is_not(name, value, message):
    with pytest.raises(OptionError) as caught:
        Sample(**{"prompt": "x", name: value})
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


def test_names_are_known_or_refused():
    assert Sample.of({"prompt": "x", "steps": 3}).steps == 3
    with pytest.raises(OptionError, match="there is no option stepz; did you mean steps"):
        Sample.of({"prompt": "x", "stepz": 3})
    with pytest.raises(OptionError, match="there are prompt, seconds"):
        Sample.of({"prompt": "x", "qqqqqq": 3})
    with pytest.raises(OptionError, match="prompt is missing: What to hear"):
        Sample.of({})


def test_what_differs_from_the_defaults_is_told_as_json_has_it():
    asked = Sample("x", steps=3, spans=((1, 2),), clip="a.wav", noise=[1], kind="a").asked()
    assert asked == {"prompt": "x", "steps": 3, "spans": [[1.0, 2.0]], "clip": "a.wav"}
    assert "clip" not in Sample("x", clip=CLIP).asked()


def test_the_schema_says_what_the_check_does():
    told = schema(Sample)
    jsonschema.Draft202012Validator.check_schema(told)
    validator = jsonschema.Draft202012Validator(told)
    assert told["required"] == ["prompt"] and "noise" not in told["properties"]
    assert told["properties"]["clip"]["contentMediaType"] == "audio/*"
    assert told["properties"]["seconds"]["x-unit"] == "s"
    plain = [(name, value) for name, value, _ in GOOD if type(value) in (int, float, str, list, type(None))]
    for name, value in plain:
        if value is not None and CLIP not in (value if isinstance(value, list) else []) and name != "noise":
            assert validator.is_valid({"prompt": "x", name: value}), (name, value)
    for name, value, _ in BAD:
        huge = isinstance(value, int | float) and abs(value) > 1e18  # JSON has no largest whole number
        if type(value) in (int, float, str, bool) and value == value and not huge and "\0" not in str(value):
            assert not validator.is_valid({"prompt": "x", name: value}), (name, value)
    assert not validator.is_valid({"prompt": "x", "other": 1})


def test_a_field_without_a_description_is_a_mistake_of_ours():
    @dataclass(frozen=True)
    class Bare(Described):
        name: str = ""

    with pytest.raises(TypeError, match=r"Bare\.name is not described"):
        Bare()


@pytest.fixture
def commands():
    app = cli.Program("thing", "audiogen-core", "A thing.")
    seen: list[Sample] = []

    @command(app, "make", Sample, jobs.Shown)
    def make(sample: Sample, shown: jobs.Shown) -> None:
        """Make it."""
        seen.append(sample)

    @command(app, "other", jobs.Written)
    def other(written: jobs.Written) -> None:
        """Something else."""

    return app, seen


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], Sample("x")),
        (["-s", "2.5", "--steps", "3"], Sample("x", seconds=2.5, steps=3)),
        (["--span", "1:2.5"], Sample("x", span=(1, 2.5))),
        (["--spans", "1:2", "--spans", "3:4"], Sample("x", spans=((1, 2), (3, 4)))),
        (["--heat", "0.5"], Sample("x", heat=0.5)),
        (["--heat", "0.5", "--heat", "1"], Sample("x", heat=(0.5, 1))),
        (["--roll", "-3", "--kind", "b", "--loud"], Sample("x", roll=-3, kind="b", loud=True)),
        (["--from", "a.wav", "--part", "there"], Sample("x", clip="a.wav", part="there")),
    ],
)
def test_a_command_reads_its_options_from_the_fields(commands, arguments, expected):
    app, seen = commands
    result = call(app, "make", "x", *arguments)
    assert result.exit_code == 0, result.stderr
    assert seen == [expected]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "0"], "steps must be a whole number of 1 or more"),
        (["--span", "half"], "--span: expected START:END"),
        (["--roll", "often"], "--roll takes a whole number, or random"),
        (["--kind", "c"], "kind must be one of a, b"),
        (["--seconds", "nan"], "seconds must be more than 0"),
    ],
)
def test_a_command_says_one_sentence(commands, arguments, message):
    app, seen = commands
    result = call(app, "make", "x", *arguments)
    assert result.exit_code == 1 and not seen
    assert result.stderr.startswith("error: ") and message in result.stderr
    assert result.stderr.count("\n") == 1


def test_help_shows_names_units_and_choices(commands):
    text = call(commands[0], "make", "--help").stdout
    for part in (
        "-s, --seconds SECONDS",
        "--kind a|b",
        "--from FILE",
        "START:END",
        "Its length.",
        "-q, --quiet",
    ):
        assert part in text, part
    assert "--noise" not in text and "--no-loud" not in text


@pytest.mark.parametrize(
    ("facts", "range"),
    [
        ({"ge": 0, "lt": 2**31}, "0 or more and below 2147483648"),
        ({"gt": 0.0, "le": 1e9}, "more than 0 and at most 1000000000"),
        ({"ge": 1e-5, "le": 1234567.25}, "from 1e-05 to 1234567.25"),
    ],
)
def test_limits_are_written_in_all_their_digits(facts, range):
    assert option("Help.", **facts).range == range


def test_an_option_is_one_line():
    """One more field is all that one more option takes: it is in the command, in Python and in the schema."""

    @dataclass(frozen=True)
    class More(Sample):
        extra: Annotated[int, option("A throw-away.")] = 1

    app = cli.Program("thing", "audiogen-core", "A thing.")
    seen: list[More] = []
    command(app, "make", More)(seen.append)
    command(app, "other", jobs.Shown)(lambda shown: None)
    assert "--extra" in call(app, "make", "--help").stdout
    assert call(app, "make", "x", "--extra", "5").exit_code == 0 and seen[0].extra == 5
    assert schema(More)["properties"]["extra"]["default"] == 1
    assert More.of({"prompt": "x", "extra": 2}).asked() == {"extra": 2, "prompt": "x"}
    assert described(More)[0].name == "extra"


def test_a_few_numbers_can_be_chosen_from() -> None:
    @dataclass(frozen=True)
    class Few(Described):
        bits: Annotated[Literal[4, 8] | None, option("How many.")] = None

    (field,) = described(Few)
    assert (Few(bits=4).bits, Few(bits=8.0).bits, Few().bits) == (4, 8, None)
    assert (field.words, field.parse("8")) == (("4", "8"), 8)
    for wrong in (3, "4", 4.5, True, [4]):
        with pytest.raises(OptionError, match="bits must be"):
            Few(bits=wrong)
    with pytest.raises(OptionError, match="bits must be one of 4, 8, got 3"):
        Few(bits=3)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5", 5), ("5s", 5), ("1:30", 90), ("1m", 60), ("1:00:02.5", 3602.5), ("1m30s", 90)],
)
def test_one_rule_for_times_everywhere(text: str, seconds: float):
    fields = {field.name: field for field in described(Sample)}
    assert fields["seconds"].parse(text) == seconds


def test_a_time_in_minutes_takes_other_units():
    @dataclass(frozen=True)
    class Long(Described):
        minutes: Annotated[float, option("How long.", unit="min")] = 1.0

    assert [described(Long)[0].parse(each) for each in ("2", "30s", "1:30")] == [2.0, 0.5, 1.5]


@pytest.mark.parametrize("text", ["five", "5x", "1:3", ""])
def test_what_is_no_time_says_how_one_is_written(text: str):
    fields = {field.name: field for field in described(Sample)}
    with pytest.raises(OptionError, match=r"--seconds: .* write for example 5, 5s, 1m or 1:30"):
        fields["seconds"].parse(text)


def test_pages_call_options_by_words_and_speak_of_no_flags():
    for job in jobs.every():
        for field in (*described(job.options), *described(job.load)):
            if field.option.role != "hidden":
                assert field.label[0].isupper() and "_" not in field.label
                assert "--" not in field.option.help, f"{job.name} {field.name}"

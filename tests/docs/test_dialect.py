"""One dialect: what an option is called is the same in all commands, and one name means one thing."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

from audiogen_core import jobs
from audiogen_core.audio import Audio
from audiogen_core.errors import OptionError
from audiogen_core.options import Field
from support.commands import call
from support.programs import program

_SPEC = importlib.util.spec_from_file_location(
    "dialect", Path(__file__).parents[2] / "docs" / "hooks" / "dialect.py"
)
assert _SPEC is not None and _SPEC.loader is not None
dialect = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(dialect)

COMMON = """--channel --channels --dry-run --fade --force --gain --json --loudness --model --no-normalize
    --normalize --offline --output --play --quiet --retry --sample-rate --seed --subtype --threads
    --variations --verbose"""


def each_option() -> list[tuple[str, Field]]:
    return [(job.name, field) for job in jobs.installed() for field in dialect.options(job)]


def test_the_table_is_current() -> None:
    assert dialect.PAGE.read_text(encoding="utf-8") == dialect.page(), "python docs/hooks/dialect.py"


def test_every_command_has_what_all_have() -> None:
    for job in jobs.installed():
        names = {name for field in dialect.options(job) for name in (field.flag, field.option.no)}
        assert set(COMMON.split()) <= names, job.name
        shorts = {name for field in dialect.options(job) for name in field.option.names if name[1] != "-"}
        assert {"-m", "-o", "-n", "-q", "-v", "-f"} <= shorts, job.name


def test_one_option_has_one_name_in_every_command_and_in_python() -> None:
    flags: dict[str, set[str]] = {}
    names: dict[str, set[str]] = {}
    for _, field in each_option():
        flags.setdefault(field.name, set()).add(field.flag)
        names.setdefault(field.flag, set()).add(field.name)
    assert {name: found for name, found in flags.items() if len(found) > 1} == {}
    two = {flag: found for flag, found in names.items() if len(found) > 1}
    assert two == {
        "--inpaint": {
            "inpaint",
            "infill",
        },  # Python's `vamp(infill=...)` is older than the command's --inpaint
        "--overlap": {"overlap", "context_seconds"},
        "--outpaint-left": {"outpaint_left", "before"},
    }


def test_no_two_names_are_told_to_do_the_same() -> None:
    told: dict[str, set[str]] = {}
    for _, field in each_option():
        told.setdefault(field.option.help, set()).add(field.flag)
    assert {help: flags for help, flags in told.items() if len(flags) > 1} == {}


def test_a_name_of_before_is_no_name_of_something_else_but_where_it_was_taken_back_for_that() -> None:
    now = {field.flag for _, field in each_option()}
    before = {old.partition("=")[0] for _, field in each_option() for old in field.option.old}
    assert before & now == {"--beats", "--keep"}  # vamp's mean other things, and had the names first


def test_what_is_chosen_from_a_few_words_shows_them() -> None:
    from audiogen_core.commands import _parameters

    for job, field in each_option():
        for parameter in _parameters(field):
            if field.words:
                shown = f"{parameter.metavar} {getattr(parameter, 'help', '')}"
                assert all(text in shown for text in field.words), (job, field.flag, shown)


AT_ODDS = {
    "musicgen": [
        ("--gain -3 --loudness -14", "--gain --loudness"),
        ("--unconditional", "--unconditional PROMPT"),
        ("--negative-prompt drums --guidance-scale 1", "--negative-prompt --guidance-scale"),
    ],
    "stable-audio": [
        ("--bpm 120", "--bpm --bars"),
        ("--bpm 120 --bars 2 --seconds 3", "--bpm --bars --seconds --long"),
        ("--inpaint 1:2", "--inpaint --init"),
        ("--init-noise-level 0.5", "--init-noise-level --init"),
        ("--continue in.wav --init in.wav", "--continue --init --inpaint"),
        ("--long", "--long --seconds"),
        ("--long --seconds 60 --init in.wav", "--long --init"),
        ("--overlap 1 --seconds 2", "--overlap --long"),
    ],
    "stable-audio-3": [
        ("--outpaint-left 2", "--outpaint-left --inpaint --init"),
        ("--outpaint-left 2 --inpaint 1:2 --init in.wav", "--outpaint-left --inpaint"),
        ("--exact", "--exact --inpaint --outpaint-left"),
        ("--codec-noise", "--codec-noise --compat"),
    ],
    "vamp": [
        ("--bpm 120 --beats 1,2", "--bpm --beats"),
        ("--bpm 120 --track-beats", "--bpm --beats --track-beats"),
        ("--loop --outpaint-right 2", "--loop --outpaint-left --outpaint-right"),
        ("--time-stretch 2 --inpaint 1:2", "--time-stretch --inpaint --loop"),
        ("--compat upstream --loop", "--compat --loop --inpaint"),
        ("--device cpu --provider CPUExecutionProvider", "--device --provider"),
    ],
    "generate": [("--gain -3 --loudness -14", "--gain --loudness")],
}
"""What contradicts itself, and the options that its error is to name."""


@pytest.mark.parametrize(
    ("job", "asked", "named"), [(job, *pair) for job, pairs in AT_ODDS.items() for pair in pairs]
)
def test_an_error_about_several_options_names_them_all(
    job: str, asked: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tone = Audio(np.full((1, 24_000), 0.1, np.float32), 24_000)
    tone.save("in.wav")
    subject = {"vamp": ["in.wav"], "generate": []}.get(job, ["slow piano"])
    done = call(program(jobs.find(job).package), job, *subject, "-m", "demo", *asked.split())
    assert done.exit_code == 1, done.output
    said = done.stderr.splitlines()[-1]
    assert not re.search(r"\b[a-z]+_[a-z]+", said), said  # no name of Python
    for flag in named.split():
        assert re.search(rf"(?<![\w-]){flag}(?![\w-])", said, re.IGNORECASE), (flag, said)


@pytest.mark.parametrize("name", ["audiogen-core", "audiogen-mlx", "audiogen-onnx", "audiogen-minigpt"])
def test_commands_that_compute_take_a_device_and_those_that_write_write_over(name: str) -> None:
    for command in program(name).commands.values():
        flags = {flag for parameter in command.params for flag in parameter.opts}
        if command.name in COMPUTE:
            assert "--device" in flags, command.name
        if "--output" in flags and command.name not in GO_ON:
            assert "--force" in flags, command.name


COMPUTE = {
    *("musicgen", "stable-audio", "stable-audio-3", "vamp", "generate", "beats", "bench", "encode"),
    *("decode", "train", "run", "eval", "convert"),
}
GO_ON = {"run", "train", "encode"}  # what is in their folder is gone on with


def test_no_device_that_is_not_here() -> None:
    for job in jobs.installed():
        here = "demo" in {entry.name for entry in job.models()}
        for word in ("tpu", "cuda:x", "cuda:999") if here else ("tpu", "cuda:x"):
            with pytest.raises(OptionError, match="device") as refused:
                job.open(model="demo", device=word)
            assert refused.value.names == ("device",)
        if here:
            assert job.open(model="demo", device="cpu").sample_rate > 0

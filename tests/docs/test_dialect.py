"""One dialect: what an option is called is the same in all commands, and one name means one thing."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from audiogen_core import jobs
from audiogen_core.options import Field

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

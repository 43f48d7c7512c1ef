"""The reference of a command line as Markdown: every command, argument and option, from the program."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click
from described import sentence

PROGRAMS = {
    "audiogen-core": ("audiogen_core.main", "commands"),
    "audiogen-mlx": ("audiogen_mlx.cli", "cli"),
    "audiogen-onnx": ("audiogen_onnx.cli", "cli"),
    "audiogen-minigpt": ("audiogen_minigpt.cli", "commands"),
}
"""Program -> where its command line is: module and name."""

_SHARED = ("--json", "--quiet", "--verbose", "--debug", "--force", "--offline", "--dry-run")
"""What the commands have in common is shown last."""


_KINDS = {"integer": "NUMBER", "float": "NUMBER", "text": "TEXT", "path": "PATH"}


def program(name: str) -> Any:
    """The command line of a program, as click sees it."""
    module, variable = PROGRAMS[name]
    return getattr(import_module(module), variable)


def page(name: str) -> str:
    """The reference of a program."""
    group = program(name)
    parts = [
        f"# {name}",
        group.help or "",
        f"Made from the program itself; `{name} --help` shows the same.",
        _table(group),
    ]
    for title, command in group.commands.items():
        parts += [
            f"## {title}",
            command.help or "",
            f"```text\n{_usage(name, command)}\n```",
            _table(command),
        ]
    return "\n\n".join(parts) + "\n"


def _usage(name: str, command: Any) -> str:
    words = [name, command.name]
    for parameter in command.params:
        shown = _value(parameter)
        if parameter.param_type_name == "argument":
            words.append(shown if parameter.required else f"[{shown}]")
        elif parameter.required:
            words.append(f"{parameter.opts[0]} {shown}")
    return " ".join([*words, "[OPTIONS]"])


def _table(command: Any) -> str:
    shown = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
    shown.sort(key=lambda each: (each.param_type_name != "argument", each.opts[0] in _SHARED))
    fields = getattr(command, "fields", {})  # not of the program itself
    rows = ["| argument or option | | default |", "| --- | --- | --- |"]
    for each in shown:
        about = sentence(fields[each.name]) if each.name in fields else each.help or ""
        rows.append(f"| {_names(each)} | {_escaped(about)} | {_default(each)} |")
    return "\n".join(rows)


def _names(parameter: Any) -> str:
    value = _value(parameter)  # in code, where a table takes a bar as it is
    if parameter.param_type_name == "argument":
        return f"`{value}`"
    names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    return names if parameter.is_flag else f"{names} `{value}`"


def _value(parameter: Any) -> str:
    """What is written for a value: the program's own word, the choices, or the kind."""
    if parameter.metavar:
        return str(parameter.metavar)
    if isinstance(parameter.type, click.Choice):
        return "|".join(str(choice) for choice in parameter.type.choices)
    return _KINDS.get(parameter.type.name, "VALUE")


def _default(parameter: Any) -> str:
    default = parameter.default
    if parameter.required:
        return "required"
    if parameter.param_type_name == "option" and parameter.is_flag:
        return "on" if default is True else ""
    return "" if default is None else f"`{_escaped(str(getattr(default, 'value', default)))}`"


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")

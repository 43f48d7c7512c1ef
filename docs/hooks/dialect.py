"""The options of all commands that make sound, side by side, as Markdown; made from the jobs.

python docs/hooks/dialect.py        writes docs/reference/options.md
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from audiogen_core import jobs
from audiogen_core.options import Field, described

PAGE = Path(__file__).parents[1] / "reference" / "options.md"

_HEAD = """---
hide:
  - toc
---

# Options of all commands, side by side

Made from the descriptions of the jobs (`docs/hooks/dialect.py`); a test holds that it is current, and
that no two names mean the same. A dot says that a command has the option.
"""


def options(job: jobs.Job) -> Iterator[Field]:
    """What the command of a job can be given, but what is given by its place alone."""
    for cls in (job.options, job.load, jobs.Run):
        for field in described(cls):
            if field.option.role != "hidden" and not (field.option.argument and not field.option.names):
                yield field


def page() -> str:
    """The whole page."""
    installed = jobs.installed()
    rows: dict[str, dict[str, Field]] = {}
    for job in installed:
        for field in options(job):
            rows.setdefault(field.flag, {})[job.name] = field
    ranked = sorted(rows.items(), key=lambda row: (-len(row[1]), row[0]))
    lines = [_HEAD, _line("option", "", *(f"`{job.name}`" for job in installed))]
    lines.append(_line("---", "---", *(":-:" for _ in installed)))
    for flag, fields in ranked:
        field = next(iter(fields.values()))
        short = [name for name in field.option.names if not name.startswith("--")]
        names = ", ".join(f"`{name}`" for name in (flag, *short, field.option.no) if name)
        lines.append(_line(names, _about(fields), *("•" if job.name in fields else "" for job in installed)))
    return "\n".join([*lines, "", *_before(installed)]) + "\n"


def _about(fields: dict[str, Field]) -> str:
    """The help, where all have the same one; else that of each."""
    helps = dict.fromkeys(field.option.help for field in fields.values())
    if len(helps) == 1:
        return next(iter(helps))
    return " ".join(
        f"{', '.join(f'`{name}`' for name, field in fields.items() if field.option.help == text)}: {text}"
        for text in helps
    )


def _before(installed: list[jobs.Job]) -> list[str]:
    """What options were called before."""
    lines = ["## Names of before, and of other programs", ""]
    lines += ["They are taken still, and a hint says the new ones.", ""]
    lines += [_line("command", "before", "now"), _line("---", "---", "---")]
    for job in installed:
        for field in options(job):
            for old in field.option.old:
                was, _, now = old.partition("=")
                lines.append(_line(f"`{job.name}`", f"`{was}`", f"`{now or field.flag}`"))
    return lines


def _line(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

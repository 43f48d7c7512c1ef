"""Figures of the source: how much there is, how it hangs together, how often an option is written.

    python scripts/figures.py

They are of the packages installed in the environment it runs in. tests/test_house.py keeps the import circles
at none.
"""

from __future__ import annotations

import ast
import io
import statistics
import tokenize
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path

import click
import grimp

PACKAGES = ("audiogen_core", "audiogen_mlx", "audiogen_onnx", "audiogen_minigpt")
JOBS = (  # package, command, a folder of the package that is another job's
    ("audiogen_mlx", "musicgen", "stable_audio"),
    ("audiogen_mlx", "stable-audio", "musicgen"),
    ("audiogen_onnx", "vamp", ""),
    ("audiogen_minigpt", "generate", ""),
)
SHORT = 6
"""Lines of a function that one caller had better inline, unless its name says what a comment would."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """One file of a package."""

    name: str
    path: Path

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(ast.parse(self.text)))

    @property
    def lines(self) -> int:
        return self.text.count("\n")

    @property
    def functions(self) -> list[Function]:
        """Methods and inner functions too."""
        return [node for node in self.nodes if isinstance(node, Function)]

    @property
    def comments(self) -> int:
        """Those that have a line of their own."""
        tokens = tokenize.generate_tokens(io.StringIO(self.text).readline)
        return sum(token.type == tokenize.COMMENT and token.line.lstrip().startswith("#") for token in tokens)

    @property
    def called_once(self) -> list[Function]:
        """Its private functions that one place of it names."""
        named = Counter(
            node.id if isinstance(node, ast.Name) else node.attr
            for node in self.nodes
            if isinstance(node, ast.Name | ast.Attribute)
        )
        private = [
            function
            for function in self.functions
            if function.name.startswith("_") and not function.name.endswith("__")
        ]
        return [function for function in private if named[function.name] == 1]

    @property
    def is_face(self) -> bool:
        """Whether it is a package's `__init__` that only passes on what others define."""
        if self.path.name != "__init__.py":
            return False
        defined = {node.name for node in self.nodes if isinstance(node, Function | ast.ClassDef)}
        return defined <= {"__getattr__", "__dir__"}


def modules() -> list[Module]:
    """The files of all packages."""
    found = []
    for package in PACKAGES:
        folder = Path(str(import_module(package).__file__)).parent
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder.parent).with_suffix("").parts
            found.append(Module(".".join(parts).removesuffix(".__init__"), path))
    return found


def length(function: Function) -> int:
    """Lines, without decorators."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def circles(files: list[Module]) -> list[list[str]]:
    """Groups of modules that import one another, directly or through others.

    Imports inside functions and those for a type checker alone count. What a package's face imports does not:
    it passes on names of what lies below.
    """
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    for face in (module.name for module in files if module.is_face):
        for below in graph.find_modules_directly_imported_by(face):
            graph.remove_import(importer=face, imported=below)
    above = {name: graph.find_downstream_modules(name) for name in graph.modules}
    groups = {
        frozenset({name, *(other for other in above[name] if name in above[other])}) for name in graph.modules
    }
    return sorted(sorted(group) for group in groups if len(group) > 1)


def options(package: str, command: str) -> list[str]:
    """The options of a command whose names, in Python, have several words: no other thing is called so."""
    app = next(
        value for value in vars(import_module(f"{package}.cli")).values() if isinstance(value, click.Group)
    )
    commands = app.commands
    return [parameter.name for parameter in commands[command].params if "_" in parameter.name]


def places(module: Module, name: str) -> set[int]:
    """Lines of a module that name an option, to declare it or to hand it on as it is.

    A field of a class, a parameter of a command, the name that is typed, an entry of a list of names,
    `name=name`; uses of its value do not count.
    """
    names = {name, name.replace("_", "-"), "--" + name.replace("_", "-")}
    of_commands = "cli" in module.path.stem
    lines = set()
    for node in module.nodes:
        match node:
            case ast.ClassDef(body=body):
                named = [each for each in body if isinstance(each, ast.AnnAssign)]
                lines |= {each.lineno for each in named if ast.unparse(each.target) == name}
            case ast.arguments(args=arguments, kwonlyargs=more) if of_commands:
                lines |= {each.lineno for each in (*arguments, *more) if each.arg == name}
            case (
                ast.Tuple(elts=entries)
                | ast.List(elts=entries)
                | ast.Set(elts=entries)
                | ast.Dict(keys=entries)
                | ast.Call(args=entries)
            ):
                texts = [each for each in entries if isinstance(each, ast.Constant)]
                lines |= {each.lineno for each in texts if each.value in names}
            case ast.keyword(arg=argument, value=value) if argument == name:
                if ast.unparse(value).split(".")[-1] == name:
                    lines.add(node.lineno)
    return lines


def main() -> None:
    files = modules()
    lengths = sorted(length(function) for module in files for function in module.functions)
    once = [length(function) for module in files for function in module.called_once]
    tenth = statistics.quantiles(lengths, n=10)[-1]
    print(f"lines                          {sum(module.lines for module in files):,}")
    print(f"files                          {len(files)}")
    print(f"functions                      {len(lengths):,}")
    print(f"  lines, median                {statistics.median(lengths):g}")
    print(f"  lines, 90 in 100 up to       {tenth:g}")
    print(f"private, named in one place    {len(once)}, {sum(once):,} lines")
    print(f"  of {SHORT} lines or fewer          {sum(lines <= SHORT for lines in once)}")
    print(f"comments on lines of their own {sum(module.comments for module in files)}")
    found = circles(files)
    print(f"import circles                 {len(found)}")
    for group in found:
        print(f"  {', '.join(group)}")
    print("places where an option is written, median and most")
    for package, command, other in JOBS:
        rooms = (
            f"{package}.",
            f"audiogen_core.{command.replace('-', '_')}.",
        )  # what two packages run is core's
        own = [module for module in files if f"{module.name}.".startswith(rooms)]
        own = [module for module in own if not other or f".{other}" not in module.name]
        counts = {
            name: sum(len(places(module, name)) for module in own) for name in options(package, command)
        }
        most = max(counts, key=lambda name: counts[name])
        print(f"  {command:29}{statistics.median(counts.values()):g}, {counts[most]} ({most})")


if __name__ == "__main__":
    main()

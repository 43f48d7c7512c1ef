"""Options as the reference shows them: read from the dataclasses that describe them."""

from __future__ import annotations

from dataclasses import is_dataclass
from importlib import import_module
from typing import Any

from griffe import Attribute, Class, Docstring, Expr, ExprSubscript, ExprTuple, Extension

from audiogen_core.options import Described, Field, described


def sentence(field: Field) -> str:
    """The help of an option, its range, and whether only some models understand it."""
    told = field.option
    more = ", ".join(fact for fact in (told.range_shown, "some models only" if told.some else "") if fact)
    return f"{told.help} {more[0].upper()}{more[1:]}." if more else told.help


class Options(Extension):
    """In the reference of Python, a described field has its plain type, and its help as docstring."""

    def on_attribute_instance(self, *, attr: Attribute, **_: Any) -> None:
        kind = _annotated(attr.annotation)
        if kind is None or not isinstance(attr.parent, Class):
            return
        cls = getattr(import_module(attr.module.path), attr.parent.name)
        if is_dataclass(cls) and issubclass(cls, Described):
            field = next(field for field in described(cls) if field.name == attr.name)
            attr.annotation, attr.docstring = kind, Docstring(sentence(field), parent=attr)


def _annotated(annotation: str | Expr | None) -> str | Expr | None:
    """T of Annotated[T, ...], or None."""
    if isinstance(annotation, ExprSubscript) and annotation.canonical_name == "Annotated":
        inside = annotation.slice
        return inside.elements[0] if isinstance(inside, ExprTuple) else None
    return None

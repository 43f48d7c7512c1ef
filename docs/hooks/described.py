"""Options as the reference shows them: read from the dataclasses that describe them."""

from __future__ import annotations

import inspect
from dataclasses import is_dataclass
from importlib import import_module
from typing import Any

from griffe import (
    Attribute,
    Class,
    Docstring,
    Expr,
    ExprSubscript,
    ExprTuple,
    Extension,
    Function,
    Parameter,
    ParameterKind,
    Parameters,
)

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


class Verbs(Extension):
    """In the reference of Python, a verb has the options that its callers give, as `help` shows them."""

    def on_function_instance(self, *, func: Function, **_: Any) -> None:
        if not any(str(each.value).startswith("verb(") for each in func.decorators):
            return
        assert isinstance(func.parent, Class)
        method = getattr(getattr(import_module(func.module.path), func.parent.name), func.name)
        function = getattr(method, "__func__", method)  # of a class method, with its class
        func.parameters = Parameters(
            *(
                Parameter(
                    each.name,
                    annotation=None if each.annotation is each.empty else _type(each.annotation),
                    kind=_KINDS[each.kind],
                    default=None if each.default is each.empty else repr(each.default),
                )
                for each in inspect.signature(function).parameters.values()
            )
        )


_KINDS = {
    inspect.Parameter.POSITIONAL_ONLY: ParameterKind.positional_only,
    inspect.Parameter.POSITIONAL_OR_KEYWORD: ParameterKind.positional_or_keyword,
    inspect.Parameter.KEYWORD_ONLY: ParameterKind.keyword_only,
}


def _type(annotation: Any) -> str:
    """A type as people write it."""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return text.replace("typing.", "")


def _annotated(annotation: str | Expr | None) -> str | Expr | None:
    """T of Annotated[T, ...], or None."""
    if isinstance(annotation, ExprSubscript) and annotation.canonical_name == "Annotated":
        inside = annotation.slice
        return inside.elements[0] if isinstance(inside, ExprTuple) else None
    return None

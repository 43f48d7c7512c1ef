"""Regular expressions of files: they match what Python's match, and take no time that a file can choose."""

from __future__ import annotations

import random
import re
import time

import pytest

from audiogen_core.formats.expressions import Expression, Expressions


def drawn(draw: random.Random, depth: int) -> str:
    kind = draw.random()
    if depth == 0 or kind < 0.4:
        return draw.choice(["a", "b", ".", r"\.", "[ab]", "[^a]", "[b-d]", r"\w", r"\d", "c", "_", "-"])
    inner = drawn(draw, depth - 1)
    if kind < 0.6:
        return inner + drawn(draw, depth - 1)
    if kind < 0.75:
        return f"{draw.choice(['(', '(?:'])}{inner}|{drawn(draw, depth - 1)})"
    return f"({inner}){draw.choice(['*', '+', '?', '{2}', '{1,2}', '{1,}', '{0,2}'])}"


def test_they_match_as_pythons_do() -> None:
    draw = random.Random(1)
    seen = {True: 0, False: 0}
    for _ in range(400):
        text = drawn(draw, 3)
        made, wanted = Expression(text), re.compile(rf"(?:.*\.)?(?:{text})", re.DOTALL)
        for _ in range(15):
            name = "".join(draw.choices("ab.c1_-", k=draw.randrange(7)))
            found = made.matches_end(name)
            assert found == bool(wanted.fullmatch(name)), (text, name)
            seen[found] += 1
    assert min(seen.values()) > 500


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a?" * 60 + "a" * 60, "a" * 61 + "b"),  # what makes Python's matcher take years
        ("(a+)+", "a" * 900 + "b"),
        (".*.*.*.*x", "a." * 450),
        ("(.*a){20}", "a" * 900 + "b"),
        ("(a|a)*b", "a" * 900),
    ],
)
def test_no_expression_takes_long(text: str, name: str) -> None:
    began = time.process_time()
    assert not Expression(text).matches_end(name)
    assert time.process_time() - began < 2


NOT_READ = ["(a", "a)", "(?=a)", "(?i:a)", r"(a)\1", "a**", "[z-a]", "[", "a{3,2}", "*a", r"\b", "^a", "a$"]
TOO_MUCH = ["x|" * 150, "((a{99}){99}){99}", "(" * 90 + ")" * 90, "a\\"]


@pytest.mark.parametrize("text", NOT_READ + TOO_MUCH)
def test_what_is_not_read_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        Expression(text)
    with pytest.raises(ValueError, match=re.escape(repr(text[:200]))):
        Expressions({text: 1})


def test_the_first_that_matches_counts() -> None:
    said = Expressions({"layers.1.q": 1, r".*\.q|v": 2, "q": 3, "k": 4, r"layers\.\d+\.k": 5})
    names = {
        "layers.1.q": 1,
        "layers.2.q": 2,
        "x.layers.1.q": 1,
        "q": 3,
        "layers.2.k": 4,
        "sk": 0,
        "v": 2,
        "": 0,
    }
    assert {name: said.value(name, 0) for name in names} == names


def test_work_is_bounded() -> None:
    assert Expressions({f"layers.{index}.q": index for index in range(50_000)}).value("layers.9.q", 0) == 9
    with pytest.raises(ValueError, match="more than 100 expressions"):
        Expressions({f"a{index}|b": 1 for index in range(101)})
    many = Expressions({f".*a{index}.*b": 1 for index in range(100)})
    began = time.process_time()
    with pytest.raises(ValueError, match="in a moment"):
        for _ in range(10_000):
            many.value("a" * 900, 0)
    with pytest.raises(ValueError, match="a name of 2000 characters"):
        many.value("a" * 2000, 0)
    assert time.process_time() - began < 20

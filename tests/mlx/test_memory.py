"""The bound of mlx's cache: set while something runs, given back after it, failures included."""

from __future__ import annotations

import os

import mlx.core as mx
import numpy as np
import pytest

from audiogen_core.errors import ModelError, OptionError
from audiogen_mlx import forks
from audiogen_mlx.memory import CACHE_LIMIT, bounded_cache
from audiogen_mlx.ops import MlxOps
from support.measured import measured

OWN = 123 << 20


@pytest.fixture(autouse=True)
def own_limit():
    """A limit of the user's, which must come back."""
    before = mx.set_cache_limit(OWN)
    yield
    assert limit() == OWN
    mx.set_cache_limit(before)


def limit() -> int:
    """mlx tells the limit only when another one is set."""
    found = mx.set_cache_limit(0)
    mx.set_cache_limit(found)
    return found


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks on this system")
def test_a_fork_of_a_process_that_used_mlx_is_told():
    with bounded_cache():
        mx.eval(mx.ones(4) + 1)

    def refused() -> str:
        told = []
        for action in (bounded_cache().__enter__, lambda: MlxOps().signal(np.zeros((1, 1, 4), np.float32))):
            with pytest.raises(ModelError) as caught:
                action()
            told.append(str(caught.value))
        return " | ".join(told)

    assert measured(refused).result.count("was forked from one that had used mlx") == 2
    forks.check()  # here nothing is lost


def test_the_limit_holds_within_and_the_users_comes_back():
    with bounded_cache():
        assert limit() == CACHE_LIMIT


def test_it_comes_back_after_a_failure():
    with pytest.raises(ZeroDivisionError), bounded_cache(1 << 20):
        mx.eval(mx.zeros((64, 64)) + 1)
        assert limit() == 1 << 20
        raise ZeroDivisionError
    assert mx.get_cache_memory() == 0


def test_an_abandoned_generator_gives_it_back():
    def chunks():
        with bounded_cache():
            yield 1
            yield 2

    started = chunks()
    assert next(started) == 1
    assert limit() == CACHE_LIMIT
    started.close()
    assert limit() == OWN


def test_of_several_runs_the_smallest_limit_holds_whatever_their_order():
    first, second = bounded_cache(3 << 20), bounded_cache(2 << 20)
    first.__enter__()
    second.__enter__()
    assert limit() == 2 << 20
    second.__exit__(None, None, None)
    assert limit() == 3 << 20
    second = bounded_cache(5 << 20)
    second.__enter__()
    assert limit() == 3 << 20
    first.__exit__(None, None, None)
    assert limit() == 5 << 20
    second.__exit__(None, None, None)


def test_a_negative_limit_is_refused():
    with pytest.raises(OptionError, match="-1"), bounded_cache(-1):
        pass

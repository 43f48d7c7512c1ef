"""Layouts: tokens and back without loss, and what is trained on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from audiogen_core import patterns
from audiogen_core.errors import CodesError, OptionError
from audiogen_minigpt.config import LAYOUTS
from audiogen_minigpt.layout import Layout

SIZE = 10


@st.composite
def clips(draw: st.DrawFn) -> tuple[Layout, torch.Tensor]:
    """A layout and codes (B, T, K) with BOS frames here and there."""
    name = draw(st.sampled_from(LAYOUTS))
    layout = Layout(name, 1 if name == "first" else draw(st.integers(1, 6)), SIZE)
    batch, frames = draw(st.integers(1, 3)), draw(st.integers(1, 12))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    codes = torch.randint(SIZE, (batch, frames, layout.codebooks), generator=generator)
    for frame in draw(st.sets(st.integers(0, frames - 1), max_size=3)):
        codes[:, frame] = SIZE
    return layout, codes


@given(clips())
def test_undo_is_the_inverse_of_tokens(clip: tuple[Layout, torch.Tensor]) -> None:
    layout, codes = clip
    tokens = layout.tokens(codes)
    assert tokens.shape == (codes.shape[0], layout.steps(codes.shape[1]), layout.streams)
    assert int(tokens.max()) <= layout.special
    assert torch.equal(layout.undo(tokens), codes)


@given(clips())
def test_inputs_and_targets_hold_the_codes(clip: tuple[Layout, torch.Tensor]) -> None:
    layout, codes = clip
    inputs, targets, mask = layout.apply(codes)
    tokens = layout.tokens(codes)
    assert torch.equal(layout.undo(torch.cat([tokens[:, :1], targets], dim=1)), codes)
    assert torch.equal(inputs, tokens[:, :-1])
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    assert torch.equal(mask, targets != layout.special)
    counted = (codes != SIZE).sum() - (tokens[:, 0] != layout.special).sum()
    assert int(mask.sum()) == int(counted)


@given(clips(), st.data())
def test_cropping_tokens_is_cropping_codes(clip: tuple[Layout, torch.Tensor], data: st.DataObject) -> None:
    layout, codes = clip
    frame = data.draw(st.integers(0, codes.shape[1] - 1))
    cropped = layout.crop(layout.tokens(codes), frame * layout.steps_per_frame)
    assert torch.equal(cropped, layout.tokens(codes[:, frame:]))


@given(clips())
def test_numpy_patterns_agree(clip: tuple[Layout, torch.Tensor]) -> None:
    layout, codes = clip
    tokens, first = layout.tokens(codes)[0].numpy().T, codes[0].numpy().T
    if layout.name == "flatten":
        plain = np.where(first == SIZE, 0, first)
        expected = patterns.flatten(plain, SIZE)
        known = patterns.flatten(first) != SIZE
        np.testing.assert_array_equal(tokens[0][known], expected[known])
    else:
        np.testing.assert_array_equal(tokens, patterns.delay(first, layout.delays, layout.special))


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("context", [8, 9, 10, 31])
def test_a_window_fills_the_context(name: str, context: int) -> None:
    layout = Layout(name, 1 if name == "first" else 4, SIZE)
    inputs, _, _ = layout.apply(torch.zeros(1, layout.window(context), layout.codebooks, dtype=torch.long))
    assert context - layout.steps_per_frame < inputs.shape[1] <= context
    if name != "flatten":
        assert inputs.shape[1] == context


def test_delay_is_a_staircase() -> None:
    layout = Layout("delay", 3, 10)
    codes = torch.tensor([[[1, 2, 3], [4, 5, 6]]])
    expected = [[1, 10, 10], [4, 2, 10], [10, 5, 3], [10, 10, 6]]
    assert layout.tokens(codes)[0].tolist() == expected


def test_flatten_has_ids_of_its_own_for_each_codebook() -> None:
    layout = Layout("flatten", 2, 10)
    assert layout.special == 20
    codes = torch.tensor([[[10, 10], [1, 2], [3, 4]]])
    assert layout.tokens(codes)[0, :, 0].tolist() == [20, 20, 1, 12, 3, 14]


def test_wrong_shapes_are_refused() -> None:
    layout = Layout("delay", 3, 10)
    with pytest.raises(CodesError, match=r"codes must be \(batch, frames, 3\)"):
        layout.tokens(torch.zeros(1, 5, 2, dtype=torch.long))
    with pytest.raises(CodesError, match=r"tokens must be \(batch, steps, 3\)"):
        layout.undo(torch.zeros(1, 5, 2, dtype=torch.long))
    with pytest.raises(CodesError, match="no whole number of frames"):
        layout.undo(torch.zeros(1, 1, 3, dtype=torch.long))
    with pytest.raises(CodesError, match="no whole number of frames"):
        Layout("flatten", 3, 10).undo(torch.zeros(1, 5, 1, dtype=torch.long))
    with pytest.raises(OptionError, match="unknown layout"):
        Layout("zigzag", 3, 10)
    with pytest.raises(OptionError, match="one codebook"):
        Layout("first", 3, 10)

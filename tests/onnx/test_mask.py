"""What the mask builders do beyond the original: randomness, mended quirks, new prompts, bad input."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiogen_core.errors import OptionError
from audiogen_core.noise import Noise, RecordedNoise, SeededNoise
from audiogen_onnx.vampnet import mask as masks
from audiogen_onnx.vampnet.mask import Mask

SHAPE = (4, 50)


def kept(mask: Mask) -> list[int]:
    """Frames kept in the first codebook (of the first item)."""
    return np.flatnonzero(~mask.reshape(-1, *mask.shape[-2:])[0, 0]).tolist()


RANDOM: dict[str, Callable[[tuple[int, ...], Noise], Mask]] = {
    "linear_random": lambda shape, noise: masks.linear_random(shape, 0.4, noise=noise),
    "random": lambda shape, noise: masks.random(shape, 0.6, noise=noise),
    "random_along_time": lambda shape, noise: masks.random_along_time(shape, 0.6, noise=noise),
    "stemgen_random": lambda shape, noise: masks.stemgen_random(shape, 0.4, noise=noise),
    "hugo_random": lambda shape, noise: masks.hugo_random(shape, 0.6, noise=noise),
    "tria_mask": lambda shape, noise: masks.tria_mask(shape, noise=noise),
    "roll": lambda shape, noise: masks.periodic_mask(shape, 9, roll="random", noise=noise),
    "dropout": lambda shape, noise: masks.dropout(masks.empty_mask(shape), 0.3, noise=noise),
    "drop_ones": lambda shape, noise: masks.drop_ones(masks.full_mask(shape), 0.3, noise=noise),
    "build": lambda shape, noise: masks.build(shape, random_intensity=0.8, dropout_share=0.2, noise=noise),
}


@pytest.mark.parametrize("name", RANDOM)
def test_item_of_a_batch_is_its_single_run(name: str) -> None:
    both = RANDOM[name]((3, *SHAPE), SeededNoise(7))
    for item in range(3):
        np.testing.assert_array_equal(both[item], RANDOM[name](SHAPE, SeededNoise(7 + item)))
    assert not (both[0] == both[1]).all() or not (both[1] == both[2]).all()


@pytest.mark.parametrize("name", RANDOM)
def test_further_axes_are_one_batch(name: str) -> None:
    grid = RANDOM[name]((2, 3, *SHAPE), SeededNoise(1))
    np.testing.assert_array_equal(grid.reshape(6, *SHAPE), RANDOM[name]((6, *SHAPE), SeededNoise(1)))


@pytest.mark.parametrize("name", RANDOM)
def test_noise_is_asked_for_by_name(name: str) -> None:
    with pytest.raises(OptionError, match="needs noise: give noise=SeededNoise"):
        RANDOM[name](SHAPE, None)  # type: ignore[arg-type]


def test_arrays_and_shapes_mean_the_same() -> None:
    codes = np.zeros(SHAPE, np.int32)
    np.testing.assert_array_equal(masks.inpaint(codes, 3, 4), masks.inpaint(SHAPE, 3, 4))


# ---- quirks, mended and not


def test_dropout_of_everything_is_everything() -> None:
    empty = masks.empty_mask((2, *SHAPE))
    assert masks.dropout(empty, 1.0, noise=SeededNoise(0)).all()
    repeated = masks.dropout(empty, 1.0, noise=SeededNoise(0), compat="upstream")
    assert 0.4 < repeated.mean() < 0.9
    assert (repeated[0] == repeated[1]).all()


@given(st.integers(1, 60), st.floats(0, 1))
def test_dropout_hits_exactly_its_share(frames: int, share: float) -> None:
    made = masks.dropout(masks.empty_mask((2, frames)), share, noise=SeededNoise(0))
    assert made.sum(axis=-1).tolist() == [int(frames * share)] * 2


def test_onsets_near_the_beginning_are_kept() -> None:
    assert kept(masks.onset_mask(SHAPE, [1, 20], 3)) == [0, 1, 2, 3, 17, 18, 19, 20, 21, 22]
    upstream = masks.onset_mask(SHAPE, [1, 20], 3, compat="upstream")
    assert kept(upstream) == [17, 18, 19, 20, 21, 22]
    assert kept(masks.onset_mask(SHAPE, [50, 60], 3)) == [47, 48, 49]
    assert kept(masks.onset_mask(SHAPE, np.array([], np.int64), 3)) == []


def test_a_random_roll_is_one_for_all_items_only_upstream() -> None:
    noise = RecordedNoise([[0.0, 0.5, 0.99]])
    rolled = masks.periodic_mask((3, *SHAPE), 10, roll="random", noise=noise)
    assert [kept(item)[0] for item in rolled] == [0, 5, 9]
    shared = masks.periodic_mask(
        (3, *SHAPE), 10, roll="random", noise=RecordedNoise([[0.5]]), compat="upstream"
    )
    assert [kept(item)[0] for item in shared] == [5, 5, 5]


# ---- prompts of our own


def test_infill_covers_every_frame_it_touches() -> None:
    facts = {"sample_rate": 1000, "hop_length": 10}
    mask = masks.infill(SHAPE, 0.1, 0.2, **facts)
    assert np.flatnonzero(mask[0]).tolist() == list(range(10, 20))
    assert np.flatnonzero(masks.infill(SHAPE, 0.101, 0.199, **facts)[0]).tolist() == list(range(10, 20))
    assert np.flatnonzero(masks.infill(SHAPE, 0.099, 0.201, **facts)[0]).tolist() == list(range(9, 21))
    assert np.flatnonzero(masks.infill(SHAPE, 0.48, 99.0, **facts)[0]).tolist() == [48, 49]
    assert masks.infill(SHAPE, 0.0, 0.5, **facts).all()


@pytest.mark.parametrize("start", np.arange(0, 0.49, 0.01))
def test_times_on_the_border_of_frames_touch_only_one(start: float) -> None:
    mask = masks.infill((1, 50), start, start + 0.01, sample_rate=1000, hop_length=10)
    assert np.flatnonzero(mask[0]).tolist() == [round(100 * start)]


@pytest.mark.parametrize(("start", "end"), [(0.2, 0.2), (0.3, 0.2), (-0.1, 0.2), (0.0, np.nan), (0.5, 0.6)])
def test_infills_of_nothing_are_refused(start: float, end: float) -> None:
    with pytest.raises(OptionError, match="infill"):
        masks.infill(SHAPE, start, end, sample_rate=1000, hop_length=10)


def test_single_codebooks_are_kept() -> None:
    mask = masks.keep_codebooks(masks.full_mask((2, *SHAPE)), [1, 3])
    assert mask.all(axis=(0, 2)).tolist() == [True, False, True, False]
    for wrong in (4, -1):
        with pytest.raises(OptionError, match="numbered 0 to 3"):
            masks.keep_codebooks(mask, [wrong])


def test_rolls_are_circular() -> None:
    mask = masks.inpaint(SHAPE, 3, 0)
    assert kept(masks.roll_mask(mask, 48)) == [0, 48, 49]
    assert kept(masks.roll_mask(mask, -1)) == [0, 1, 49]
    np.testing.assert_array_equal(masks.roll_mask(masks.roll_mask(mask, 17), 33), mask)
    assert kept(masks.periodic_mask(SHAPE, 20, roll=15)) == [5, 15, 35]


def test_another_mask_narrows_what_is_built() -> None:
    within = masks.inpaint(SHAPE, 0, 30)
    mask = masks.build(SHAPE, period=0, within=within, keep=4)
    np.testing.assert_array_equal(mask, within)
    freer = masks.build(SHAPE, period=0, within=within, keep=1)
    assert kept(freer) == list(range(20, 50))
    assert freer[1:].all()


def test_build_joins_all_prompts() -> None:
    prompts = {"prefix": 2, "suffix": 1, "period": 20, "roll": 5, "onsets": [33], "onset_width": 1}
    mask = masks.build(SHAPE, keep=2, conditioning_codebooks=1, **prompts)
    assert not mask[0].any()
    assert np.flatnonzero(~mask[1]).tolist() == [0, 1, 5, 25, 32, 33, 45, 49]
    assert mask[2:].all()


def test_no_builder_changes_what_it_is_given() -> None:
    mask = masks.inpaint(SHAPE, 5, 5)
    before = mask.copy()
    masks.codebook_mask(mask, 1)[:] = False
    masks.codebook_unmask(mask, None)[:] = False
    masks.dropout(mask, 0.0)[:] = True
    masks.drop_ones(mask, 0.0)[:] = False
    masks.roll_mask(mask, 0)[:] = False
    masks.keep_codebooks(mask, [])[:] = False
    masks.build(SHAPE, period=0, within=mask)[:] = False
    np.testing.assert_array_equal(mask, before)


# ---- bad input


@pytest.mark.parametrize("shape", [(), (5,), (0, 5), (3, 0), (0, 3, 5)])
def test_shapes_that_hold_no_codes(shape: tuple[int, ...]) -> None:
    with pytest.raises(OptionError, match="codebooks, frames"):
        masks.full_mask(shape)


@pytest.mark.parametrize(
    "call",
    [
        lambda: masks.inpaint(SHAPE, -1, 0),
        lambda: masks.inpaint(SHAPE, 0, -1),
        lambda: masks.periodic_mask(SHAPE, -7),
        lambda: masks.periodic_mask(SHAPE, 7, -1),
        lambda: masks.onset_mask(SHAPE, [3], -1),
        lambda: masks.codebook_mask(masks.full_mask(SHAPE), -1),
        lambda: masks.codebook_unmask(masks.full_mask(SHAPE), -1),
        lambda: masks.seconds_to_frames(-1.0, 44_100, 768),
    ],
)
def test_counts_below_zero_are_refused(call: Callable[[], object]) -> None:
    with pytest.raises(OptionError, match=r"0 (seconds )?or more, got -"):
        call()


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_shares_outside_zero_to_one_are_refused(value: float) -> None:
    for call in (
        lambda: masks.linear_random(SHAPE, value),
        lambda: masks.random(SHAPE, value),
        lambda: masks.dropout(masks.full_mask(SHAPE), value),
        lambda: masks.drop_ones(masks.full_mask(SHAPE), value),
    ):
        with pytest.raises(OptionError, match=r"in \[0, 1\]"):
            call()


def test_masks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(OptionError, match=r"\(4, 50\) and \(4, 49\) cannot be joined"):
        masks.mask_and(masks.full_mask(SHAPE), masks.full_mask((4, 49)))
    with pytest.raises(OptionError, match=r"the mask has shape \(2, 4, 50\), but the codes have \(4, 50\)"):
        masks.apply_mask(np.zeros(SHAPE, np.int64), masks.full_mask((2, *SHAPE)), 9)
    with pytest.raises(OptionError, match=r"the mask has shape \(4, 49\)"):
        masks.apply_mask(np.zeros(SHAPE, np.int64), masks.full_mask((4, 49)), 9)
    with pytest.raises(OptionError, match="got an array of int64"):
        masks.mask_or(np.ones(SHAPE, np.int64), masks.full_mask(SHAPE))  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="time stretch"):
        masks.time_stretch_mask(SHAPE, 0)
    for frame in (50, -1):
        with pytest.raises(OptionError, match="outside the mask's 50"):
            masks.dropout(masks.full_mask(SHAPE), 0.5, frames=[frame])

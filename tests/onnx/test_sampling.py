"""Filling masked codes: what holds for any model, and what the default mends of the original."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiogen_core.errors import CodesError, ModelError, OptionError
from audiogen_core.noise import RecordedNoise, SeededNoise
from audiogen_onnx.vampnet.sampling import FillOptions, check_mask, fill, fill_scored, find_size
from support.vampnet_fakes import FakeLogits

SIZE, BOOKS, FRAMES = 32, 3, 20
RNG = np.random.default_rng(11)
CODES = RNG.integers(0, SIZE, (2, BOOKS, FRAMES))
MASK = RNG.random((2, BOOKS, FRAMES)) < 0.6


def model(conditioning: int = 0) -> FakeLogits:
    return FakeLogits(SIZE, conditioning)


@settings(max_examples=40)
@given(
    st.integers(1, 9),
    st.floats(0, 2),
    st.floats(0, 20),
    st.floats(0, 1),
    st.integers(0, 2),
    st.sampled_from(["audiogen", "upstream"]),
    st.integers(0, 10),
)
def test_what_is_kept_stays_and_what_is_masked_is_filled(
    steps, temperature, heat, cutoff, conditioning, compat, tenths
):
    mask = RNG.random(CODES.shape) < tenths / 10
    mask[:, :conditioning] = False
    out = fill(
        CODES,
        mask,
        model(conditioning),
        steps=steps,
        temperature=temperature,
        mask_temperature=heat,
        sample_cutoff=cutoff,
        conditioning_codebooks=conditioning,
        noise=SeededNoise(1),
        compat=compat,
        codebook_size=SIZE,
    )
    assert out.dtype == np.int64 and out.shape == CODES.shape
    assert np.array_equal(out[~mask], CODES[~mask])
    assert out.min() >= 0 and out.max() < SIZE


def test_the_schedule_leaves_fewer_masks_at_each_step():
    seen = model()
    fill(CODES, MASK, seen, steps=8, noise=SeededNoise(0), codebook_size=SIZE)
    for item in range(2):
        left = [int((call[item] == SIZE).sum()) for call in seen.calls]
        count = MASK[item].sum()
        expected = [int(np.floor(np.cos(np.pi / 2 * step / 8) * count)) for step in range(8)]
        assert left == expected


def test_upstream_counts_the_masks_of_the_whole_batch():
    seen = model()
    fill(CODES, MASK, seen, steps=8, noise=SeededNoise(0), codebook_size=SIZE, compat="upstream")
    left = [int((call[0] == SIZE).sum()) for call in seen.calls]
    assert left[1] == left[0] - 1, "one place is settled where the mended schedule settles several"


@pytest.mark.parametrize("cutoff", [1.0, 0.4])
def test_an_item_of_a_batch_is_its_single_run(cutoff):
    options = {"steps": 6, "top_p": 0.9, "sample_cutoff": cutoff, "codebook_size": SIZE}
    both = fill(CODES, MASK, model(), noise=SeededNoise(40), **options)
    for item in range(2):
        alone = fill(CODES[item], MASK[item], model(), noise=SeededNoise(40 + item), **options)
        assert np.array_equal(both[item], alone)


def test_temperature_0_needs_no_noise_for_tokens_and_is_the_same_for_every_seed():
    runs = [
        fill(
            CODES, MASK, model(), temperature=0, mask_temperature=0, noise=SeededNoise(s), codebook_size=SIZE
        )
        for s in (1, 2)
    ]
    assert np.array_equal(*runs)
    one = model()
    got = fill(CODES, MASK, one, steps=1, temperature=0, noise=SeededNoise(0), codebook_size=SIZE)
    likeliest = one(np.where(MASK, SIZE, CODES)).argmax(axis=-1)
    assert np.array_equal(got[MASK], likeliest[MASK])


def test_the_typical_filter_works_and_upstream_drops_it():
    for compat, same in (("audiogen", False), ("upstream", True)):
        with_it, without = (
            fill(
                CODES, MASK, model(), typical_mass=mass, typical_min_tokens=1, noise=SeededNoise(3),
                compat=compat, codebook_size=SIZE,
            )
            for mass in (0.05, None)
        )  # fmt: skip
        assert np.array_equal(with_it, without) == same


def test_noise_is_asked_for_in_the_order_and_shapes_that_are_promised():
    places = FRAMES * 2
    arrays = []
    for _ in range(3):
        arrays += [RNG.exponential(size=(2, places, SIZE)), RNG.random((2, places))]
    noise = RecordedNoise(arrays)
    fill(CODES, MASK, model(1), steps=3, conditioning_codebooks=1, noise=noise, codebook_size=SIZE)
    assert noise.left == 0


def test_nothing_to_do_asks_nobody():
    seen = model()
    out = fill(CODES, np.zeros_like(MASK), seen, noise=RecordedNoise([]), codebook_size=SIZE)
    assert np.array_equal(out, CODES) and out is not CODES
    assert not seen.calls


@pytest.mark.parametrize("compat", ["audiogen", "upstream"])
def test_a_place_that_holds_the_codebook_size_is_masked(compat):
    asked = {"steps": 3, "codebook_size": SIZE, "compat": compat}
    marked = np.where(MASK, SIZE, CODES)
    by_code = fill(marked, np.zeros_like(MASK), model(), noise=SeededNoise(5), **asked)
    by_mask = fill(CODES, MASK, model(), noise=SeededNoise(5), **asked)
    assert np.array_equal(by_code, by_mask)


def test_the_mask_of_conditioning_codebooks_is_ignored():
    full = np.ones_like(MASK)
    out = fill(CODES, full, model(2), conditioning_codebooks=2, noise=SeededNoise(0), codebook_size=SIZE)
    assert np.array_equal(out[:, :2], CODES[:, :2])


def test_confidence_is_that_of_what_was_made():
    options = FillOptions(steps=4)
    filled = fill_scored(CODES, MASK, model(), options, noise=SeededNoise(2), codebook_size=SIZE)
    assert (filled.confidence[~MASK] == 0).all()
    assert (filled.confidence[MASK] < 0).all()


def test_each_step_is_told_and_may_stop_the_work():
    told = []
    fill(
        CODES, MASK, model(), steps=5, noise=SeededNoise(0), codebook_size=SIZE,
        on_step=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert told == [(step, 5) for step in range(1, 6)]

    def stop(done: float, total: float) -> None:
        if done == 2:
            raise KeyboardInterrupt

    seen = model()
    with pytest.raises(KeyboardInterrupt):
        fill(CODES, MASK, seen, steps=5, noise=SeededNoise(0), codebook_size=SIZE, on_step=stop)
    assert len(seen.calls) == 2


def test_the_codebook_size_is_found():
    class Knows:
        codebook_size = 77

        def logits(self, codes: np.ndarray) -> np.ndarray:
            raise AssertionError("not to be asked")

    assert find_size(Knows().logits, CODES) == 77
    assert find_size(model(), CODES) == SIZE


def test_masks_of_fewer_axes():
    frames = MASK[0, 0]
    assert np.array_equal(check_mask(frames, CODES[0]), np.tile(frames, (BOOKS, 1)))
    assert np.array_equal(check_mask(MASK[0], CODES), np.stack([MASK[0]] * 2))
    by_item = MASK[:, 0]
    assert np.array_equal(check_mask(by_item, CODES), np.repeat(by_item[:, None], BOOKS, axis=1))
    assert np.array_equal(check_mask(MASK.astype(np.int64), CODES), MASK)


def run(codes: object = CODES, mask: object = MASK, **options: object) -> np.ndarray:
    return fill(codes, mask, model(), **{"noise": SeededNoise(0), "codebook_size": SIZE, **options})


@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    [
        ({"steps": 0}, OptionError, "steps"),
        ({"steps": 2.5}, OptionError, "steps"),
        ({"temperature": -1}, OptionError, "temperature"),
        ({"mask_temperature": -1}, OptionError, "mask_temperature"),
        ({"sample_cutoff": 2}, OptionError, "sample_cutoff"),
        ({"compat": "original"}, OptionError, "compat"),
        ({"conditioning_codebooks": 3}, OptionError, "conditioning_codebooks"),
        ({"mask": MASK[..., :-1]}, CodesError, "another length"),
        ({"mask": MASK * 2}, CodesError, "True"),
        ({"codes": CODES.astype(np.float32)}, CodesError, "integers"),
        ({"codes": CODES[0, 0]}, CodesError, "shape"),
        ({"codes": CODES + SIZE}, CodesError, "another codec"),
        ({"conditioning_codebooks": 1}, ModelError, "expected"),
    ],
)
def test_one_sentence_for_what_is_wrong(wrong, error, says):
    with pytest.raises(error, match=says):
        run(**wrong)

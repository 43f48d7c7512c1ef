"""From options to a mask, and where the clip itself stays."""

from __future__ import annotations

import numpy as np
import pytest

from audiogen_core.audio import Audio
from audiogen_core.errors import CodesError, OptionError
from audiogen_core.noise import RecordedNoise, SeededNoise
from audiogen_onnx.vampnet.options import VampOptions
from audiogen_onnx.vampnet.prompts import Layout, build_mask, spans
from audiogen_onnx.vampnet.sound import in_samples

RATE, HOP, BOOKS, LENGTH = 1000, 10, 6, 955


def masked(**options: object) -> np.ndarray:
    given, noise = options.pop("given", None), options.pop("noise", SeededNoise(1))
    clip = options.pop("clip", None)
    chosen = VampOptions(**{"roll": 0, **options})
    layout = Layout.of(chosen, RATE, HOP, BOOKS, LENGTH)
    return build_mask(chosen, layout, given=given, noise=noise, clip=clip)


def test_the_default_is_the_originals():
    mask = masked()
    assert mask.shape == (BOOKS, 96)
    assert mask[3:].all()
    assert np.array_equal(mask[:3], np.tile(np.arange(96) % 7 != 0, (3, 1)))


def test_prefix_and_suffix_are_seconds():
    mask = masked(period=0, prefix=0.1, suffix=0.205)
    assert not mask[0, :10].any() and mask[0, 10:75].all() and not mask[0, 75:].any()


def test_infill_makes_only_what_lies_between():
    mask = masked(infill=(0.2, 0.4))
    assert mask[:, 20:40].all()
    assert not mask[:, :20].any() and not mask[:, 40:].any()
    prompted = masked(infill=(0.2, 0.4), period=5)
    assert not prompted[:, 20:40:5].any() and prompted[:, 21].all()


def test_outpainting_adds_frames_on_either_side():
    options = VampOptions(outpaint_left=0.105, outpaint_right=0.2)
    layout = Layout.of(options, RATE, HOP, BOOKS, LENGTH)
    assert (layout.before, layout.inside, layout.frames, layout.skipped) == (11, 96, 127, 5)
    mask = build_mask(options, layout, noise=SeededNoise(1))
    assert mask[:, :11].all() and not mask[:, 11:106].any()
    assert mask[:, 106:].all(), "the last frame of the clip is half empty"


def test_where_the_clip_itself_stays():
    options = VampOptions(infill=(0.2, 0.4), outpaint_left=0.1, outpaint_right=0.1)
    layout = Layout.of(options, RATE, HOP, BOOKS, LENGTH)
    found = spans(options, layout, 0.007)
    assert np.allclose(found, [(-np.inf, 0.107), (1.048, np.inf), (0.3, 0.5)])
    assert in_samples(found, 1000) == [(-np.inf, 107), (1048, np.inf), (300, 500)]
    assert spans(VampOptions(), layout, 0.007) == []
    assert spans(VampOptions(infill=(0, 1), keep_original=False), layout, 0.007) == []


def test_beats_by_tempo_and_by_list():
    grid = masked(period=0, bpm=240, after_beat=0.02)
    kept = [0, 1, 25, 26, 50, 51, 75, 76]
    assert np.flatnonzero(~grid[0]).tolist() == kept
    assert grid[3:].all()
    assert np.array_equal(masked(period=0, beats=(0, 0.25, 0.5, 0.75), after_beat=0.02), grid)
    first = masked(period=0, bpm=240, after_beat=0.02, upbeats=False)
    assert np.flatnonzero(~first[0]).tolist() == [0, 1]
    moved = masked(period=0, bpm=240, after_beat=0.02, outpaint_left=0.1)
    assert moved[:, :10].all() and not moved[:, 10:].any(), "only what is new is made"


def test_onsets_come_from_the_sound():
    click = np.zeros((1, 66_150), np.float32)
    click[0, 22_050:22_200] = 0.9
    heard = Audio(click, 22_050)
    layout = Layout(22_050, 512, 4, 66_150)
    mask = build_mask(VampOptions(period=0, onset_width=2, roll=0), layout, clip=lambda: heard)
    kept = np.flatnonzero(~mask[0])
    assert 3 <= len(kept) <= 8
    assert abs(kept.mean() - 22_050 / 512) < 4


def test_a_users_mask_is_kept_to():
    users = np.zeros((BOOKS, 96), bool)
    users[2:, 30:50] = True
    assert np.array_equal(masked(given=users), users)
    frames = masked(given=users[2].astype(np.int64))
    assert np.array_equal(frames, np.tile(users[2], (BOOKS, 1)))
    both = masked(given=users, infill=(0.0, 0.4))
    assert np.array_equal(both[:, :40], users[:, :40]) and not both[:, 40:].any()


def test_randomness_is_drawn_from_the_noise():
    with pytest.raises(OptionError, match="asked for"):
        masked(roll="random", noise=RecordedNoise([]))
    some = [masked(dropout=0.3, noise=SeededNoise(seed)) for seed in (1, 1, 2)]
    assert np.array_equal(some[0], some[1]) and not np.array_equal(some[0], some[2])


@pytest.mark.parametrize("shape", [(BOOKS, 95), (BOOKS - 1, 96), (97,), (2, BOOKS, 96)])
def test_a_mask_of_another_shape(shape):
    with pytest.raises(CodesError, match="another length"):
        masked(given=np.ones(shape, bool))


def test_a_mask_that_is_none():
    with pytest.raises(CodesError, match="True"):
        masked(given=np.full(96, 2))


def test_an_infill_behind_the_end():
    with pytest.raises(OptionError, match="ends at"):
        masked(infill=(5, 6))

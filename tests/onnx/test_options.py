"""The options of a vamp: ranges, contradictions, and the way into a recipe and back."""

from __future__ import annotations

import json

import pytest

from audiogen_core.errors import OptionError
from audiogen_onnx.vampnet.options import VampOptions
from audiogen_onnx.vampnet.pair import fine_fill


def test_only_what_differs_is_written_and_comes_back_through_json():
    options = VampOptions(infill=(1, 2.5), beats=None, steps=4, top_p=0.9, roll=3)
    written = options.asked()
    assert written == {"infill": [1.0, 2.5], "steps": 4, "top_p": 0.9, "roll": 3}
    assert VampOptions.of(json.loads(json.dumps(written))) == options
    assert VampOptions().asked() == {}


def test_everything_reaches_the_fine_network():
    options = VampOptions(temperature=0.7, top_p=0.8, mask_temperature=3, fine_steps=5, steps=20)
    fine = fine_fill(options)
    assert fine.steps == 5 and fine.mask_temperature == 3
    assert (fine.filters.temperature, fine.filters.top_p) == (0.7, 0.8)
    assert fine_fill(VampOptions(fine_temperature=0.3)).filters.temperature == 0.3


def test_an_unknown_option_names_the_closest():
    with pytest.raises(OptionError, match="did you mean temperature"):
        VampOptions.of({"temprature": 1})


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"fine_steps": 0},
        {"temperature": -1},
        {"fine_temperature": -1},
        {"prefix": -1},
        {"suffix": float("nan")},
        {"period": -1},
        {"period": 2.5},
        {"period_width": -2},
        {"onset_width": -1},
        {"dropout": 1.1},
        {"random_intensity": -0.1},
        {"keep": -1},
        {"bpm": 0},
        {"feedback_steps": 0},
        {"time_stretch_factor": 0},
        {"window_seconds": 0},
        {"context_seconds": -1},
        {"infill": (2, 1)},
        {"infill": (1,)},
        {"outpaint_left": -1},
        {"compat": "original"},
        {"bpm": 120, "beats": (1.0,)},
        {"loop": True, "outpaint_left": 1},
        {"time_stretch_factor": 2, "loop": True},
        {"time_stretch_factor": 2, "infill": (0, 1)},
        {"compat": "upstream", "loop": True},
    ],
)
def test_one_sentence_for_what_is_wrong(wrong):
    with pytest.raises(OptionError) as caught:
        VampOptions(**wrong)
    said = str(caught.value)
    assert any(name.split("_seconds")[0] in said for name in wrong) and "\n" not in said

"""The tokenizer: cutting, filling, and files that are none. Ids are compared in tests/parity/test_t5.py."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from audiogen_core.errors import ModelError, OptionError
from audiogen_core.tokenizer import Tokenizer

FOLDER = Path(__file__).parents[1] / "fixtures" / "musicgen" / "tokenizer"


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.load(FOLDER)


def test_a_long_text_is_cut_before_its_end_token(tokenizer):
    whole, _ = tokenizer.encode(["heavy drums " * 50])
    ids, mask = tokenizer.encode(["heavy drums " * 50, ""], max_length=9)
    assert ids.shape == (2, 9)
    assert ids[0].tolist() == [*whole[0, :8].tolist(), tokenizer.end]
    assert ids[1].tolist() == [tokenizer.end] + [tokenizer.pad] * 8
    assert mask.sum(axis=1).tolist() == [9, 1]
    assert (ids.dtype, mask.dtype) == (np.int32, np.bool_)


def test_texts_are_filled_up_to_a_length(tokenizer):
    ids, mask = tokenizer.encode(["pop"], pad_to=40)
    assert ids.shape == mask.shape == (1, 40)
    assert ids[0, mask[0]].tolist() == tokenizer.encode(["pop"])[0][0].tolist()
    assert set(ids[0, ~mask[0]].tolist()) == {tokenizer.pad}


def test_settings_stored_in_the_file_do_not_cut_or_fill(tmp_path, tokenizer):
    stored = json.loads((FOLDER / "tokenizer.json").read_text(encoding="utf-8"))
    stored["truncation"] = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    (tmp_path / "tokenizer.json").write_text(json.dumps(stored), encoding="utf-8")
    ids, _ = Tokenizer.load(tmp_path).encode(["heavy drums and loud guitars"])
    np.testing.assert_array_equal(ids, tokenizer.encode(["heavy drums and loud guitars"])[0])


@pytest.mark.parametrize("texts", [[], "one string", [3], ["pop", None]])
def test_what_is_no_list_of_texts_is_refused(tokenizer, texts):
    with pytest.raises(OptionError, match="list of one or more strings"):
        tokenizer.encode(texts)


def test_impossible_lengths_are_refused(tokenizer):
    with pytest.raises(OptionError, match="max_length"):
        tokenizer.encode(["pop"], max_length=0)
    with pytest.raises(OptionError, match="does not fit in 2"):
        tokenizer.encode(["heavy drums and loud guitars"], pad_to=2)


def test_a_folder_with_only_the_old_file_says_what_to_do(tmp_path):
    shutil.copy(FOLDER / "spiece.model", tmp_path)
    with pytest.raises(ModelError, match=r"make tokenizer\.json of it once .*save_pretrained"):
        Tokenizer.load(tmp_path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"tokenizer\.json: no such file"):
        Tokenizer.load(tmp_path)


def test_rules_that_come_to_no_end_are_refused(tmp_path):
    """What the library finds after ten million steps is a panic of Rust, and no Exception."""
    stored = json.loads((FOLDER / "tokenizer.json").read_text(encoding="utf-8"))
    stored["normalizer"] = {"type": "Replace", "pattern": {"Regex": "(a+a+)+[^a]"}, "content": "b"}
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(stored), encoding="utf-8")
    made = Tokenizer.load(path)
    for call in (made.unknown, made.tell_unknown, lambda text: made.encode([text])):
        with pytest.raises(ModelError, match=r"tokenizer\.json: not a tokenizer"):
            call("a" * 40)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not readable as JSON"),
        (b"{", "not readable as JSON"),
        (b"\xff\xfe", "not readable"),
        (b"[]", "not a tokenizer"),
        (b"{}", "not a tokenizer"),
        (b'{"model": {"type": "Unigram", "vocab": 3}}', "not a tokenizer"),
    ],
)
def test_a_damaged_file_is_refused_in_one_sentence(tmp_path, content, message):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        Tokenizer.load(path)


def test_a_tokenizer_of_another_family_is_refused(tmp_path):
    stored = json.loads((FOLDER / "tokenizer.json").read_text(encoding="utf-8"))
    text = json.dumps(stored).replace("</s>", "[SEP]")
    (tmp_path / "tokenizer.json").write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match="not a T5 tokenizer: it has no </s> token"):
        Tokenizer.load(tmp_path)


def test_of_two_ways_as_likely_the_one_of_the_original(tmp_path):
    """The scores are T5's own. "g gg gg" and "gg gg g" cost the same; sentencepiece and transformers begin
    with the short piece, and so does the search if every score is read to its last bit."""
    pieces = {"<pad>": 0.0, "</s>": 0.0, "<unk>": 0.0, "▁": -2.0122928619384766}
    pieces |= {"g": -7.407997131347656, "gg": -10.809488296508789}
    stored = json.loads((FOLDER / "tokenizer.json").read_text(encoding="utf-8"))
    stored["model"]["vocab"] = [list(piece) for piece in pieces.items()]
    (tmp_path / "tokenizer.json").write_text(json.dumps(stored), encoding="utf-8")
    short, long = list(pieces).index("g"), list(pieces).index("gg")
    made = Tokenizer.load(tmp_path)
    for pairs in range(1, 40):
        ids, _ = made.encode(["g" * (2 * pairs + 1)])
        assert ids[0].tolist() == [3, short, *[long] * pairs, made.end], pairs

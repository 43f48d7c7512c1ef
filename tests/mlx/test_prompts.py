"""The words that the demo MusicGen is asked in: what it knows, what else it takes for that, what it names."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest

from audiogen_core.errors import ModelError
from audiogen_core.musicgen.files import Files
from audiogen_core.prompts import FILE, LEFT_OUT, NOTHING_NEAR, VOICES, Prompts
from audiogen_core.tokenizer import Tokenizer
from audiogen_mlx.catalog import MUSICGEN, STABLE_AUDIO
from audiogen_mlx.cli import cli
from audiogen_mlx.convert import convert
from audiogen_mlx.musicgen.generate import MusicGen
from support import recipes
from support.commands import call
from support.stored import FIXTURES

FOLDER = MUSICGEN["demo"].path
DIFFUSION = STABLE_AUDIO["demo"].path / "t5"
OWN = "it keeps to a tempo of its own choice"


@pytest.fixture(scope="module")
def words() -> Prompts:
    found = Prompts.read(FOLDER)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.load(FOLDER)


@pytest.fixture
def deaf(tmp_path: Path) -> Path:
    """A model that learned the words for a tempo and does not follow them."""
    folder = shutil.copytree(DIFFUSION.parent, tmp_path / "deaf")
    with recipes.recipe("demo_music") as modules:
        modules.prompts.save(folder / "t5" / FILE, modules.prompts.OWN_TEMPO)
    return folder


def told(tokenizer: Tokenizer, prompt: str) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tokenizer.tell_unknown(prompt)
    return [str(each.message) for each in caught]


def test_the_files_are_what_the_recipe_writes(tmp_path: Path) -> None:
    with recipes.recipe("demo_music") as modules:
        made = modules.prompts.save(tmp_path / FILE)
        for folder in (FOLDER, DIFFUSION):
            assert made.read_bytes() == (folder / FILE).read_bytes()


def test_everything_it_says_is_in_words_the_model_learned(words: Prompts, tokenizer: Tokenizer) -> None:
    own = [word for names in words.knows.values() for each in names.values() for word in each]
    assert len(own) > 80
    for said in [*own, *words.means.values(), *words.nearest.values(), *words.bpm]:
        assert tokenizer.unknown(said) == [], said


def test_what_it_takes_for_its_own_words_is_not_one_of_them(words: Prompts) -> None:
    own = {word.lower() for names in words.knows.values() for each in names.values() for word in each}
    assert own.isdisjoint({*words.means, *words.nearest})
    assert set(words.means).isdisjoint(words.nearest)


@pytest.mark.parametrize(
    ("typed", "heard"),
    [
        ("sad piano in C minor", "sad piano in C minor"),
        ("hip hop", "hip hop beat"),
        ("A hip-hop track", "A hip hop beat track"),
        ("hip hop beat", "hip hop beat"),
        ("relaxing  LoFi   hip hop", "calm  lo-fi beat"),
        ("melancholy piano", "sad piano"),
        ("chiptunes", "chiptunes"),
        ("in a major key", "in a major key"),
        ("96 bpm beat", "slow beat"),
        ("piano, no vocals", "piano, "),  # which it never has
        ("piano at 110 BPM", "piano at medium"),
    ],
)
def test_what_means_the_same_is_taken_for_it_silently(
    words: Prompts, tokenizer: Tokenizer, typed: str, heard: str
) -> None:
    assert words.understood(typed) == (heard, {})
    assert not any("cannot follow" in message for message in told(tokenizer, typed))


@pytest.mark.parametrize(
    ("typed", "heard", "near"),
    [
        ("sad violin", "sad piano", {"violin": "the nearest is piano"}),
        ("Techno in C minor", "fast beat in C minor", {"Techno": "the nearest is fast beat"}),
        ("violin, violin", "piano, piano", {"violin": "the nearest is piano"}),
        ("no piano, just drums", ", just drums", {"no piano": LEFT_OUT}),
        ("drums without any Happy bells", "drums  bells", {"without any Happy": LEFT_OUT}),
        ("piano without drums", "piano gentle", {"without drums": "the nearest is gentle"}),
        ("piano in Bb minor", "piano in C minor", {"Bb minor": "the nearest is C minor"}),
        ("60 bpm", "slow", {"60 bpm": "the nearest is slow, 93.75 bpm"}),
        ("140.5 beats per minute", "fast", {"140.5 beats per minute": "the nearest is fast, 125 bpm"}),
        ("piano, singing", "piano, ", {"singing": NOTHING_NEAR}),
        (
            "rock with violin",
            "beat with ",
            {"rock": "the nearest is beat", "violin": "the nearest is piano, but rock won"},
        ),
        ("strings over drums", " over drums", {"strings": "the nearest is piano, but drums won"}),
        (
            "hip hop, no piano, strings",
            "hip hop beat, , ",
            {"no piano": LEFT_OUT, "strings": "the nearest is piano, but hip hop won"},
        ),
        (
            "140 bpm techno",
            "fast fast beat",
            {"140 bpm": "the nearest is fast, 125 bpm", "techno": "the nearest is fast beat"},
        ),
    ],
)
def test_what_it_cannot_follow_is_named_once_with_what_it_does_instead(
    words: Prompts, tokenizer: Tokenizer, typed: str, heard: str, near: dict[str, str]
) -> None:
    assert words.understood(typed) == (heard, near)
    named = ", ".join(f"{said} ({instead})" for said, instead in near.items())
    assert told(tokenizer, typed) == [f"the model cannot follow {named}"]


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ("slow fast piano", "the prompt asks for slow and fast at once; it plays one"),
        ("presto, Calm piano", "the prompt asks for calm and fast at once; it plays one"),
        ("beat in C minor and a minor", "the prompt asks for A minor and C minor at once; it plays one"),
        ("slow, calm piano in C minor", ""),
    ],
)
def test_what_cannot_be_at_once_is_told(tokenizer: Tokenizer, typed: str, sentence: str) -> None:
    assert told(tokenizer, typed) == [sentence] * bool(sentence)


@pytest.mark.parametrize(
    ("typed", "named"),
    [
        ("fast chiptun in A mnor", "chiptun (did you mean chiptune?), mnor (did you mean minor?)"),
        ("3/4 piano", "3/4"),
        ("piano, xyzzy, for my cat", "xyzzy, cat"),
        ("gutiar about thunder", "gutiar (did you mean guitar?), thunder"),
    ],
)
def test_words_it_has_never_seen_are_named_as_they_were_typed(
    tokenizer: Tokenizer, typed: str, named: str
) -> None:
    (sentence,) = told(tokenizer, typed)
    assert sentence.startswith(f"the model has never seen: {named}; ")


def test_words_it_knows_and_does_not_follow_are_named(deaf: Path) -> None:
    words = Tokenizer.load(deaf / "t5")
    assert told(words, "Slow piano in C minor") == [f"the model cannot follow Slow ({OWN})"]
    assert told(words, "presto beat") == [f"the model cannot follow presto ({OWN})"]
    assert told(words, "60 bpm piano") == [f"the model cannot follow 60 bpm ({OWN})"]
    assert told(words, "sad piano") == []


@pytest.mark.parametrize(
    ("typed", "style"),
    [
        ("slow piano in C minor", "piano"),
        ("fast piano", "piano"),
        ("Sad piano", "piano"),
        ("calm piano ballad in A minor", "piano"),
        ("a dark, mysterious piano piece", "piano"),
        ("romantic grand piano, relaxed", "piano"),
        ("happy music box", "music box"),
        ("gentle lullaby", "music box"),
        ("slow, dreamy bell melody", "music box"),
        ("nursery tune in C major", "music box"),
        ("upbeat drum groove", "beat"),
        ("lo-fi beat", "beat"),
        ("hip hop beat", "beat"),
        ("drum and bass beat, energetic", "beat"),
        ("funky beat at 125 bpm", "beat"),
        ("94 bpm pop beat", "beat"),
        ("fast chiptune", "chiptune"),
        ("energetic chiptune in C major", "chiptune"),
        ("8-bit video game music", "chiptune"),
        ("retro game music, playful", "chiptune"),
    ],
)
def test_common_prompts_in_its_own_words_are_followed(
    words: Prompts, tokenizer: Tokenizer, typed: str, style: str
) -> None:
    heard, near = words.understood(typed)
    assert near == {}
    assert tokenizer.unknown(typed) == []
    assert any(saying in heard.lower() for saying in words.knows["style"][style])


@pytest.mark.parametrize(
    ("typed", "heard", "near", "passed_over"),
    [
        ("lofi", "lo-fi beat", [], []),
        ("140 bpm techno", "fast fast beat", ["140 bpm", "techno"], []),
        ("120 bpm house music", "fast fast beat", ["120 bpm", "house music"], []),
        ("sad violin", "sad piano", ["violin"], []),
        ("epic orchestral soundtrack", "epic piano soundtrack", ["orchestral"], ["epic"]),
        ("jazz trio", "piano trio", ["jazz"], ["trio"]),
        ("happy acoustic guitar", "happy plucks and drums", ["acoustic guitar"], []),
        ("heavy metal, fast", "beat, fast", ["heavy metal"], []),
        ("ambient pads, 60 bpm", "calm calm piano, slow", ["pads", "60 bpm"], []),
        ("80s synthwave", "chiptune chiptune", ["80s", "synthwave"], []),
        ("reggae", "beat", ["reggae"], []),
        ("classical string quartet", "piano piano", ["classical", "string quartet"], []),
        ("female vocals", "", ["female vocals"], []),
        ("rock song with soulful vocals", "beat song with soulful ", ["rock", "vocals"], ["soulful"]),
        ("rain and thunder", "rain and thunder", [], ["rain", "thunder"]),
        ("saxophone solo", "piano solo", ["saxophone"], []),
        ("piano without drums", "piano gentle", ["without drums"], []),
        ("piano in F# minor", "piano in C minor", ["F# minor"], []),
        ("country song with banjo", "beat song with plucks and drums", ["country", "banjo"], []),
        ("trap beat, 4/4, 90 BPM", "beat beat, , slow", ["trap", "90 BPM"], []),
        ("choir", "", ["choir"], []),
    ],
)
def test_common_prompts_in_other_words_say_what_is_not_followed(
    words: Prompts, tokenizer: Tokenizer, typed: str, heard: str, near: list[str], passed_over: list[str]
) -> None:
    found, named = words.understood(typed)
    assert (found, list(named), tokenizer.unknown(typed)) == (heard, near, passed_over)
    for part in (*near, *passed_over):
        assert sum(message.count(part) for message in told(tokenizer, typed)) == 1, part


@pytest.mark.parametrize("typed", VOICES)
def test_no_word_for_a_voice_chooses_an_instrument(words: Prompts, typed: str) -> None:
    assert words.understood(f"drums and {typed}") == ("drums and ", {typed: NOTHING_NEAR})
    assert words.literal().understood(typed) == (typed, {})  # which an adapter may know


@pytest.mark.parametrize("typed", ["choir", "no piano"])
def test_nothing_may_be_left_of_what_it_cannot_follow(tokenizer: Tokenizer, typed: str) -> None:
    first, second = told(tokenizer, typed)
    assert first.startswith(f"the model cannot follow {typed} (")
    assert second.startswith("of the prompt nothing is left, and it plays anything")


@pytest.mark.parametrize("typed", ["epic trailer", "langsames Klavier in c-Moll", "\N{MUSICAL KEYBOARD}"])
def test_a_prompt_of_which_nothing_is_left_is_told(tokenizer: Tokenizer, typed: str) -> None:
    (message,) = told(tokenizer, typed)
    assert "so nothing is left, and it plays anything" in message


def test_words_that_say_nothing_are_not_told(tokenizer: Tokenizer) -> None:
    assert told(tokenizer, "just a lofi beat to make me happy") == []
    assert told(tokenizer, "please play some piano music, a song like that, or a track in my style") == []
    (message,) = told(tokenizer, "something like a zither, and a piano to it")
    assert message.startswith("the model has never seen: zither; it passes over that;")


def test_such_words_make_the_clip_of_the_model_s_own() -> None:
    model = MusicGen.load("demo")
    with pytest.warns(UserWarning, match="cannot follow techno"):
        first = model.generate_codes("techno", seconds=0.5, seed=3)
    second = model.generate_codes("fast beat", seconds=0.5, seed=3)
    np.testing.assert_array_equal(first.values, second.values)


@pytest.mark.parametrize("job", ["musicgen", "stable-audio"])
def test_a_dry_run_says_what_is_not_followed_as_the_run_does(tmp_path: Path, job: str) -> None:
    asked = (job, "sad violin", "-m", "demo", "--negative-prompt", "zither", "--seconds", 0.3, "--seed", 1)
    here = (*asked, "-o", tmp_path / "a.wav")
    with pytest.warns(UserWarning) as dry:
        shown = call(cli, *here, "--dry-run")
    with pytest.warns(UserWarning) as made:
        call(cli, *here, "-q")
    sentences = [str(each.message) for each in made]
    assert len(sentences) == 2 and "violin" in sentences[0] and "zither" in sentences[1]
    assert [str(each.message) for each in dry] == sentences
    assert json.loads(call(cli, *asked, "--dry-run", "--json").stdout)["not_followed"] == sentences
    assert "bytes" not in shown.stdout and re.search(r"^weight +\d+\.\d MB$", shown.stdout, re.MULTILINE)


def test_the_command_lists_them(deaf: Path) -> None:
    shown = call(cli, "prompts", "-m", "demo")
    assert shown.exit_code == 0, shown.output
    examples = re.findall(r"^  .+  (\w+ .+ in \w minor|\w+ .+ in \w major)$", shown.stdout, re.MULTILINE)
    assert "slow music box in A minor" in examples and len(examples) == 4
    for line in ("tempo", "  slow    slow, calm,", "only near", "  piano  "):
        assert line in shown.stdout
    assert "violin, violins, cello" in shown.stdout
    assert "not followed" not in shown.stdout  # by this model all is
    facts = json.loads(call(cli, "prompts", "--json").stdout)
    assert list(facts["style"]) == ["music box", "piano", "beat", "chiptune"]
    assert facts["the same as"]["hip hop"] == "hip hop beat"
    assert facts["bpm"]["fast"] == "125"
    assert facts["not followed"] == {}
    listed = json.loads(call(cli, "prompts", "-m", deaf, "--json").stdout)
    assert listed["not followed"] == {"tempo": OWN}


@pytest.mark.parametrize("model", ["musicgen-small", FIXTURES / "musicgen" / "musicgen-mono"])
def test_a_model_that_lists_no_words_is_told(model: object) -> None:
    done = call(cli, "prompts", "-m", model)
    assert done.exit_code != 0
    assert "lists no words" in done.stderr


def test_they_go_with_a_converted_model_and_change_its_revision(tmp_path: Path) -> None:
    folder = convert(Files(FOLDER), tmp_path / "copy", dtype="float16")
    assert (folder / FILE).read_bytes() == (FOLDER / FILE).read_bytes()
    before = Files(folder).fingerprint()
    (folder / FILE).unlink()
    assert Files(folder).fingerprint() != before


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"knows": {}}', '{"knows": {}, "means": {"a": 1}, "nearest": {}, "bpm": {}, "limits": {}}'],
)
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, text: str) -> None:
    shutil.copy(FOLDER / "tokenizer.json", tmp_path)
    (tmp_path / FILE).write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match=FILE):
        Tokenizer.load(tmp_path)

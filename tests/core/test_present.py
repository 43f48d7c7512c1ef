"""What is printed: control characters that stand in a file are shown, not obeyed."""

from __future__ import annotations

import json
import logging
import warnings

import pytest

from audiogen_core import cli, present
from audiogen_core.errors import AudioError

EVIL = "\x1b]0;PWNED\x07 \x9b2J \r\x08 \u202e \u2028 \x7f"
SHOWN = r"\x1b]0;PWNED\x07 \x9b2J \r\x08 \u202e \u2028 \x7f"


def controls(text: str) -> list[str]:
    """Characters that a terminal obeys."""
    return [char for char in text if ord(char) in (*range(32), *range(127, 160)) or char in "\u202e\u2028"]


def test_values_and_keys_are_shown_with_their_control_characters_written_out() -> None:
    result = {"prompt": EVIL, EVIL: 1, "settings": {"a": [EVIL], EVIL: {"b": EVIL}}, "two\nlines": "a\nb"}
    text = present.as_text(result)
    assert set(controls(text)) == {"\n"}
    assert text.count(SHOWN) == 5
    assert r"a\nb" in text and r"two\nlines" in text


def test_a_table_too() -> None:
    text = present.as_text([{"name": EVIL, EVIL: "x"}])
    assert set(controls(text)) == {"\n"}
    assert text.count(SHOWN) == 2


def test_bytes_are_shown_as_people_read_them() -> None:
    sizes = {"bytes": 999, "weight_bytes": 20_578_560, "cache_bytes": 1_200, "download_bytes": 2_345_678_901}
    assert [line.split(maxsplit=1) for line in present.as_text(sizes).splitlines()] == [
        ["size", "999 B"],
        ["weight", "20.6 MB"],
        ["cache", "1.2 kB"],
        ["download", "2.35 GB"],
    ]
    assert present.as_text([{"bytes": None, "free_bytes": 0}]).split() == ["size", "free", "-", "0", "B"]
    assert json.loads(present.as_json(sizes)) == sizes


def test_json_has_them_as_escapes_and_means_the_same() -> None:
    result = {"prompt": EVIL, EVIL: ["\u00e4 \u97f3", EVIL]}
    text = present.as_json(result)
    assert set(controls(text)) == {"\n"}
    assert json.loads(text) == result
    assert "\u00e4 \u97f3" in text


def test_texts_without_them_stay_as_they_are() -> None:
    assert present.printable("a\\b '\u00e4' \u97f3 \U0001f3b5") == "a\\b '\u00e4' \u97f3 \U0001f3b5"


def test_notes_warnings_and_errors(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = cli.Program("audiogen-thing", "audiogen-core", "One line.")
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # as without pytest

    @app.command()
    def make() -> None:
        cli.state.verbose = True
        cli.note(f"one\n{EVIL}")
        cli.detail(EVIL)
        logging.getLogger("audiogen_thing").warning("%s", EVIL)
        warnings.warn(EVIL, UserWarning, stacklevel=1)
        raise AudioError(f"a.wav: {EVIL}")

    @app.command()
    def other() -> None:
        pass

    monkeypatch.setattr("sys.argv", ["audiogen-thing", "make"])
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with pytest.raises(SystemExit):
            cli.run(app)
    err = capfd.readouterr().err
    assert set(controls(err)) == {"\n"}
    assert err.count(r"\x1b]0;PWNED\x07") == 5
    assert err.splitlines()[0] == "one"

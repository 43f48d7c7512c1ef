"""Text to token ids, as the tokenizers of T5 and of Gemma make them (`tokenizer.json`)."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from audiogen_core.errors import ModelError, OptionError
from audiogen_core.prompts import FILLERS, Prompts
from audiogen_core.settings import parse_json, read_text
from audiogen_core.values import check_text

if TYPE_CHECKING:
    import tokenizers

FILE = "tokenizer.json"
END = "</s>"
PAD = "<pad>"
UNKNOWN = "<unk>"

_JOINED = re.compile(r"[^\w\s,;]+")
"""What stands between the parts of one thing, such as 3/4."""

NAMED = 10
"""Of the parts that a model does not know, so many are named."""


class Tokenizer:
    """A T5 tokenizer. Every text ends in `</s>`; shorter ones of a batch are filled up with `<pad>`.

    prompts  of a model with words of its own: texts are put in these first
    ends     whether a text ends in `</s>`; those of T5Gemma end without
    """

    def __init__(
        self,
        tokens: tokenizers.Tokenizer,
        source: str,
        prompts: Prompts | None = None,
        *,
        ends: bool = True,
    ) -> None:
        end, pad = tokens.token_to_id(END), tokens.token_to_id(PAD)
        if pad is None or (ends and end is None):
            kind, lacks = "T5" if ends else "Gemma", PAD if pad is None else END
            raise ModelError(f"{source}: not a {kind} tokenizer: it has no {lacks} token")
        tokens.no_padding()
        tokens.no_truncation()
        self._tokens, self.prompts, self._source = tokens, prompts, source
        self._unknown = tokens.token_to_id(UNKNOWN)
        self.end: int | None = end if ends else None
        self._ends: list[int] = [] if self.end is None else [self.end]
        self.pad: int = pad

    @classmethod
    def load(cls, path: str | Path, *, ends: bool = True) -> Tokenizer:
        """From a tokenizer.json, or the folder that holds one. Raises ModelError, saying what to do."""
        file = Path(path)
        if file.is_dir():
            file = file / FILE
        if not file.is_file():
            if (file.parent / "spiece.model").is_file():
                folder = str(file.parent)
                raise ModelError(
                    f"{folder}: holds only spiece.model; make {FILE} of it once where transformers, "
                    f"sentencepiece and protobuf are installed: T5Tokenizer.from_pretrained({folder!r})"
                    f".save_pretrained({folder!r})"
                )
            raise ModelError(f"{file}: no such file; a T5 model comes with its {FILE}")
        text = read_text(file, ModelError)
        return cls(_parse(text, file), str(file), Prompts.read(file.parent), ends=ends)

    def literal(self) -> Tokenizer:
        """One that leaves words as they are for which the model has only something near: an adapter may know
        what they are.
        """
        made = copy(self)
        made.prompts = self.prompts and self.prompts.literal()
        return made

    def __len__(self) -> int:
        return int(self._tokens.get_vocab_size())

    def to_json(self) -> str:
        """What a tokenizer.json of it holds."""
        return str(self._tokens.to_str())

    def encode(
        self, texts: Sequence[str], *, max_length: int | None = None, pad_to: int | None = None
    ) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """Texts -> ids int32 (B, L) and mask bool (B, L), true where a token is real.

        max_length  tokens a text may have, `</s>` included; what is over is cut off before `</s>`
        pad_to      L; without it, that of the longest text

        An empty text is `</s>` alone. Raises OptionError when there is no text, when one is not a
        string, when `max_length` is below 1 or a text is longer than `pad_to`.
        """
        if isinstance(texts, str) or not texts or not all(isinstance(text, str) for text in texts):
            raise OptionError("the texts to encode must be a list of one or more strings")
        for text in texts:
            check_text("a text to encode", text)
        if max_length is not None and max_length < 1:
            raise OptionError(f"max_length must be 1 or more tokens, got {max_length}")
        rows = [self._row(text, max_length) for text in texts]
        longest = max(map(len, rows))
        if pad_to is not None and longest > pad_to:
            raise OptionError(f"a text of {longest} tokens does not fit in {pad_to}; give a max_length too")
        length = longest if pad_to is None else pad_to
        ids = np.full((len(rows), length), self.pad, np.int32)
        mask = np.zeros((len(rows), length), np.bool_)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
            mask[i, : len(row)] = True
        return ids, mask

    def unknown(self, text: str) -> list[str]:
        """The parts of a text that no token stands for, each once, in order."""
        text, _ = self._understood(text)
        made = self._cut(text)
        spans: list[tuple[int, int]] = []
        for id, (start, end) in zip(made.ids, made.offsets, strict=True):
            if id == self._unknown:
                if spans and _JOINED.fullmatch(text[spans[-1][1] : start]):
                    start = spans.pop()[0]
                spans.append((start, end))
        return list(dict.fromkeys(text[start:end] for start, end in spans))

    def tell_unknown(self, text: str) -> None:
        """Warn of what `not_followed` tells."""
        for sentence in self.not_followed(text):
            warnings.warn(sentence, UserWarning, stacklevel=2)

    def understands(self, text: str) -> bool:
        """Whether a text says anything to the model, as far as is known."""
        left, _ = self._understood(text)
        return bool(text.strip()) and (self.prompts is None or self.prompts.knows_any(left))

    def not_followed(self, *texts: str | None) -> list[str]:
        """Sentences on parts of texts that mean nothing to the model, or for which it has something near."""
        given = dict.fromkeys(text for text in texts if text is not None)
        return [sentence for text in given for sentence in self._not_followed(text)]

    def _not_followed(self, text: str) -> list[str]:
        told = []
        left, near = self._understood(text)
        if near:
            named = ", ".join(f"{said} ({instead})" for said, instead in near.items())
            told.append(f"the model cannot follow {named}")
        unknown = self.unknown(text)
        telling = [part for part in unknown if not FILLERS.fullmatch(part)]
        if self.prompts is None:
            end = "it passes over that"
        elif self.prompts.knows_any(left) or not text.strip():
            unknown = telling
            end = "it passes over that; its words are listed by `audiogen-mlx prompts`"
        else:
            unknown = telling or unknown
            nothing = "nothing is left, and it plays anything; its words, which are English, are listed by "
            nothing += "`audiogen-mlx prompts`"
            end = f"so {nothing}"
            if not self._cut(left).ids:
                if near:
                    told.append(f"of the prompt {nothing}")
                else:
                    unknown = [text.strip()]
        if self.prompts is not None:
            told += [f"the prompt asks for {each} at once; it plays one" for each in self.prompts.torn(left)]
            unknown = [f"{part}{self.prompts.hint(part)}" for part in unknown]
        if unknown:
            named = ", ".join(unknown[:NAMED]) + (", ..." if len(unknown) > NAMED else "")
            told.append(f"the model has never seen: {named}; {end}")
        return told

    def _understood(self, text: str) -> tuple[str, dict[str, str]]:
        return (text, {}) if self.prompts is None else self.prompts.understood(text)

    def _row(self, text: str, max_length: int | None) -> list[int]:
        text, _ = self._understood(text)
        row: list[int] = self._cut(text).ids
        return [*(row if max_length is None else row[: max_length - len(self._ends)]), *self._ends]

    def _cut(self, text: str) -> tokenizers.Encoding:
        """The text in tokens. Raises ModelError for rules of the tokenizer that come to no end."""
        with _Refusals(self._source):
            return self._tokens.encode(text, add_special_tokens=False)


def _parse(text: str, file: Path) -> tokenizers.Tokenizer:
    import tokenizers

    stored = parse_json(text, f"{file}: not readable as JSON")
    with _Refusals(str(file)):
        tokens = tokenizers.Tokenizer.from_str(text)
        if isinstance(tokens.model, tokenizers.models.Unigram):
            # The library misreads the last bit of a third of the scores. Where two ways to cut a text are
            # equally likely ("g gg gg" and "gg gg g") that bit would choose, and not the rule of the search.
            model = stored["model"]
            scores = [(piece, float(score)) for piece, score in model["vocab"]]
            tokens.model = tokenizers.models.Unigram(
                scores, model.get("unk_id"), model.get("byte_fallback", False)
            )
        return tokens


class _Refusals:
    """Turns what the tokenizers library raises into ours: a plain Exception, no subclass, or a panic of Rust,
    which is no Exception.
    """

    def __init__(self, source: str) -> None:
        self.source = source

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is Exception or (kind is not None and kind.__name__ == "PanicException"):
            raise ModelError(f"{self.source}: not a tokenizer ({error})") from error

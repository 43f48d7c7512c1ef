"""A tokenizer of whole words for the captions of composed music, in the format of `tokenizers`.

A word no caption has is `<unk>`, so a program can say which words mean nothing to the model. Case, accents
and punctuation do not count.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
from captions import caption
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from audiogen_core.compose import DEFAULT_STYLES, STYLES, TEMPI

PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"
SPECIAL = (PAD, END, UNKNOWN)  # ids 0, 1 and 2, as T5 has them
BPM = {"slow": 93.75, "medium": 112.5, "fast": 125.0}
CAPTIONS = 300  # of each kind of piece


def tokenizer(seed: int = 0) -> Tokenizer:
    """A tokenizer that knows the words of many captions; the same for the same seed."""
    made = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
    made.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.Lowercase(),
            normalizers.NFD(),
            normalizers.StripAccents(),
            normalizers.Replace(Regex(r"[^\w\s#♯♭]"), " "),  # sharps and flats stay: C# is not C
        ]
    )
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.decoder = decoders.Fuse()
    trainer = trainers.WordLevelTrainer(special_tokens=list(SPECIAL), show_progress=False)
    made.train_from_iterator(sorted(captions(seed)), trainer)
    return made


def save(path: Path, seed: int = 0) -> Path:
    tokenizer(seed).save(str(path))
    return path


def captions(seed: int, each: int = CAPTIONS) -> list[str]:
    """So many captions of each kind of piece."""
    rng = np.random.Generator(np.random.PCG64(seed))
    kinds = [
        {"style": style, "key": key, "tempo": tempo, "bpm": BPM[tempo]}
        for style, tempo in product(DEFAULT_STYLES, TEMPI)
        for key in STYLES[style].keys
    ]
    return [caption(rng, kind) for kind in kinds for _ in range(each)]

"""The MusicGen models that can be fetched by name, and what they need beside themselves.

Revisions are commits under which the files are found in public use. Where the note says that none is known,
the newest files are taken; the hub states their hashes on the day of the download.
"""

from __future__ import annotations

from audiogen_core.models import FileSpec, ModelSpec

_LICENSE = "CC-BY-NC-4.0"
_UNPINNED = "No commit is known here, so the newest files of the repository are taken."
_SETTINGS = ("config.json", "preprocessor_config.json", "tokenizer.json")


def _spec(name: str, revision: str, files: tuple[str | FileSpec, ...], note: str = "") -> ModelSpec:
    """One of the authors' models. A note tells what its name does not."""
    specs = tuple(FileSpec(file) if isinstance(file, str) else file for file in files)
    notes = ["Non-commercial.", note, _UNPINNED if revision == "main" else ""]
    return ModelSpec(
        name=name,
        family="musicgen",
        repo=f"facebook/{name}",
        revision=revision,
        files=specs,
        license=_LICENSE,
        note=" ".join(part for part in notes if part),
    )


def _shards(count: int) -> tuple[str, ...]:
    """The settings, an index, and that many files of weights."""
    shards = (f"model-{index + 1:05}-of-{count:05}.safetensors" for index in range(count))
    return (*_SETTINGS, "model.safetensors.index.json", *shards)


_WHOLE = (*_SETTINGS, "model.safetensors")
_AUDIOCRAFT = ("state_dict.bin", "compression_state_dict.bin")

MUSICGEN: dict[str, ModelSpec] = {
    spec.name: spec
    for spec in (
        _spec("musicgen-small", "4c8334b02c6ec4e8664a91979669a501ec497792", _WHOLE),
        _spec(
            "musicgen-medium",
            "12547f3ab30e662c198273ea22994e3c1a98131b",
            (*_SETTINGS, "pytorch_model.bin"),
        ),
        _spec(
            "musicgen-large",
            "15ccdc92099879e47b6da12c350cdb71d4eab3ca",
            (
                *_SETTINGS,
                "pytorch_model.bin.index.json",
                FileSpec(
                    "pytorch_model-00001-of-00002.bin",
                    sha256="a7ed8a0d95eff206263d1ae62955a7b8a7dab11a6b55e953887aea6ed54f85bd",
                ),
                FileSpec(
                    "pytorch_model-00002-of-00002.bin",
                    sha256="f9923d2947297a9883404abfd4041a32cf486c763d36e00eb4f178823bf6bdac",
                ),
            ),
        ),
        _spec("musicgen-stereo-small", "main", _WHOLE),
        _spec("musicgen-stereo-medium", "d89b612ef09ea9e2e4fcd7f5fc51fba63b964c7f", _WHOLE),
        _spec("musicgen-stereo-large", "2be1dd44de5d8ec3097a2144dbc5922039e67fd0", _shards(2)),
        _spec("musicgen-melody", "6eb8539b8f58210b68673406f403bb0e63ba730e", _shards(2)),
        _spec("musicgen-melody-large", "main", _shards(3)),
        _spec("musicgen-stereo-melody", "main", _shards(2)),
        _spec("musicgen-stereo-melody-large", "main", _shards(3)),
        _spec("musicgen-style", "main", _AUDIOCRAFT, "Needs t5-base, and MERT for styles."),
        _spec(
            "audiogen-medium",
            "1277dd7dfd8fa57a205a70acc5de0ee90804502f",
            (
                FileSpec(
                    "state_dict.bin",
                    size=3_678_455_287,
                    sha256="f3b20997834de1ca47d6a31d00a5dc37019b279c7c8f250fd482d56def04faaa",
                ),
                FileSpec(
                    "compression_state_dict.bin",
                    size=235_740_815,
                    sha256="5a520e64ca99226a9956f83b06df0617b713183fcdc384779883a6bb46dc1095",
                ),
            ),
            "Sounds rather than music, 10 s at once; needs t5-large. A model of Meta's, older than this "
            "package and no relation of it.",
        ),
    )
}

T5_LARGE = ModelSpec(
    name="t5-large",
    family="t5",
    repo="google-t5/t5-large",
    revision="main",
    files=(FileSpec("config.json"), FileSpec("tokenizer.json"), FileSpec("model.safetensors")),
    license="Apache-2.0",
    note=_UNPINNED,
)

T5_TOKENIZER = ModelSpec(
    name="t5-tokenizer",
    family="t5",
    repo="google-t5/t5-base",
    revision="a9723ea7f1b39c1eae772870f3b547bf6ef7e6c1",
    files=(FileSpec("tokenizer.json"),),
    license="Apache-2.0",
)
"""For folders without a tokenizer.json: all T5 of the first version share it."""

T5_VOCABULARY = 32_128
"""Rows of the embedding that belong to this tokenizer."""

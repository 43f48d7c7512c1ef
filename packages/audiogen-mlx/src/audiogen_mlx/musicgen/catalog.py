"""The MusicGen models that can be fetched by name, and what they need beside themselves.

Revisions are commits, so files never change. Where no sha256 is written here, the one that the hub states on
the day of the download is used. Of repositories with weights in several formats, the files are those that
need the least room and have the safest format.
"""

from __future__ import annotations

from audiogen_core.models import FileSpec, ModelSpec, Shipped

_LICENSE = "CC-BY-NC-4.0"
_NOTE = "The weights may not be used commercially."
_SETTINGS = (FileSpec("config.json"), FileSpec("tokenizer.json"))
_MELODY = (*_SETTINGS, FileSpec("preprocessor_config.json"))


def _shards(count: int) -> tuple[FileSpec, ...]:
    """The files of weights in several pieces, with the index that says which tensor is where."""
    names = [f"model-{number:05}-of-{count:05}.safetensors" for number in range(1, count + 1)]
    return (FileSpec("model.safetensors.index.json"), *(FileSpec(name) for name in names))


def _spec(name: str, revision: str, *files: FileSpec, note: str = "") -> ModelSpec:
    return ModelSpec(
        name=name,
        family="musicgen",
        repo=f"facebook/{name}",
        revision=revision,
        files=files,
        license=_LICENSE,
        note=f"{_NOTE} {note}".strip(),
    )


_SPECS = (
    _spec(
        "musicgen-small",
        "4c8334b02c6ec4e8664a91979669a501ec497792",
        *_SETTINGS,
        FileSpec("model.safetensors"),
    ),
    _spec(
        "musicgen-medium",
        "d3bd7b00761b78ad7a8a05145ee31e7832e9916c",
        *_SETTINGS,
        FileSpec("pytorch_model.bin"),
    ),
    _spec(
        "musicgen-large",
        "15ccdc92099879e47b6da12c350cdb71d4eab3ca",
        *_SETTINGS,
        FileSpec("pytorch_model.bin.index.json"),
        FileSpec(
            "pytorch_model-00001-of-00002.bin",
            sha256="a7ed8a0d95eff206263d1ae62955a7b8a7dab11a6b55e953887aea6ed54f85bd",
        ),
        FileSpec(
            "pytorch_model-00002-of-00002.bin",
            sha256="f9923d2947297a9883404abfd4041a32cf486c763d36e00eb4f178823bf6bdac",
        ),
    ),
    _spec(
        "musicgen-stereo-small",
        "3a110c0092820d470372c880c5ea06ce21a78ddd",
        *_SETTINGS,
        FileSpec("model.safetensors"),
    ),
    _spec(
        "musicgen-stereo-medium",
        "2747e613fbaadc43b14257224326ef58c5c11b81",
        *_SETTINGS,
        FileSpec("model.safetensors"),
    ),
    _spec(
        "musicgen-stereo-large",
        "bda8ec330c9c17e09728589eaf678f58f7d2d932",
        *_SETTINGS,
        *_shards(2),
    ),
    _spec(
        "musicgen-melody",
        "68d653a95788ec0d2b0abccab22c0b3a200c2d90",
        *_MELODY,
        *_shards(2),
    ),
    _spec(
        "musicgen-melody-large",
        "6fdf8d3d815995108c9bdb5183414ff464b171ac",
        *_MELODY,
        *_shards(3),
    ),
    _spec(
        "musicgen-stereo-melody",
        "022c3bd20a7d77e7c014082f0391bcbcd3940a7a",
        *_MELODY,
        *_shards(2),
    ),
    _spec(
        "musicgen-stereo-melody-large",
        "eea14861e6c29c47aea1055982a217468cd1634d",
        *_MELODY,
        *_shards(3),
    ),
    _spec(
        "musicgen-style",
        "bd0bbe32a093ef751414cf2dd7a9a7e4fef16e96",
        FileSpec(
            "state_dict.bin",
            size=2_836_706_311,
            sha256="87f54d61170fa09cd8a724ef0055a18bfeb213ba339239b4ce8ddf0c7f2ce0a3",
        ),
        FileSpec(
            "compression_state_dict.bin",
            size=236_001_935,
            sha256="37d256b525d4117f8bbf790ab448a8e9f4746cd401900fe1ae72e154b1513a30",
        ),
        note="It needs t5-base, and for styles MERT, which are fetched too.",
    ),
    _spec(
        "audiogen-medium",
        "1277dd7dfd8fa57a205a70acc5de0ee90804502f",
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
        note="Meta's model of sounds, not of music. It needs t5-large, which is fetched too.",
    ),
)

DEMO = Shipped(
    name="demo",
    family="musicgen",
    package="audiogen_mlx",
    folder="data/demo-musicgen",
    license="Apache-2.0",
    note="For the command musicgen. A toy that has heard composed music only; works offline at once.",
)

MUSICGEN: dict[str, ModelSpec | Shipped] = {spec.name: spec for spec in (DEMO, *_SPECS)}

T5_LARGE = ModelSpec(
    name="t5-large",
    family="t5",
    repo="google-t5/t5-large",
    revision="150ebc2c4b72291e770f58e6057481c8d2ed331a",
    files=(FileSpec("config.json"), FileSpec("tokenizer.json"), FileSpec("model.safetensors")),
    license="Apache-2.0",
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

"""The codecs that can be fetched by name.

Revisions are commits of the repositories, so their files never change; where the note says otherwise none
was known. The hashes are those that the hub states for these files (its pages
blob/<revision>/model.safetensors). Where none is written here, the one that the hub states on the day of the
download is used.
"""

from __future__ import annotations

from audiogen_core.models import FileSpec, ModelSpec


def _dac(kilohertz: int, revision: str) -> ModelSpec:
    return ModelSpec(
        name=f"dac-{kilohertz}khz",
        family="dac",
        repo=f"descript/dac_{kilohertz}khz",
        revision=revision,
        files=(FileSpec("config.json"), FileSpec("model.safetensors")),
        license="MIT",
        note="The licence of the authors' repository descriptinc/descript-audio-codec. "
        "No sha256 is known here.",
    )


CATALOG: dict[str, ModelSpec] = {
    "encodec-24khz": ModelSpec(
        name="encodec-24khz",
        family="encodec",
        repo="facebook/encodec_24khz",
        revision="c1dbe2ae3f1de713481a3b3e7c47f357092ee040",
        files=(
            FileSpec("config.json"),
            FileSpec(
                "model.safetensors",
                sha256="37a7cb100f71a29e6c1d815aca8666a1d7ea8885ebe44c306c751a5103559d57",
            ),
        ),
        license="MIT",
        note="The licence of the authors' repository facebookresearch/encodec; the model card names none.",
    ),
    "encodec-32khz": ModelSpec(
        name="encodec-32khz",
        family="encodec",
        repo="facebook/encodec_32khz",
        revision="d0c45384f6c44db055f78200cfdcb9c1c8706727",
        files=(
            FileSpec("config.json"),
            FileSpec(
                "model.safetensors",
                sha256="0e78f34d2ff3259f29bd51f7a99060151fe4ba5776fee216f58847f06082f1ca",
            ),
        ),
        license="CC-BY-NC-4.0",
        note="Non-commercial: trained for MusicGen, whose repository facebookresearch/audiocraft "
        "licenses its weights so; the model card names none.",
    ),
    "encodec-48khz": ModelSpec(
        name="encodec-48khz",
        family="encodec",
        repo="facebook/encodec_48khz",
        revision="main",
        files=(FileSpec("config.json"), FileSpec("model.safetensors")),
        license="MIT",
        note="The licence of the authors' repository facebookresearch/encodec; the model card names none. "
        "Neither a commit nor a sha256 is known here, so the newest files of the repository are taken.",
    ),
    "dac-16khz": _dac(16, "7c2fc5e759f1f501aefc6e7a0265cc57f5d17ba7"),
    "dac-24khz": _dac(24, "6ba020b5ba7d9d8076fb90db7e67f27e31980f6e"),
    "dac-44khz": _dac(44, "c1bc521685adf9cfe247bc39a5ca58917eda1ac4"),
    "lac": ModelSpec(
        name="lac",
        family="lac",
        repo="hugggof/vampnet",
        revision="main",
        files=(FileSpec("codec.pth"),),
        license="CC-BY-NC-SA-4.0",
        note="Non-commercial: VampNet's codec. Neither a commit nor a sha256 is known here, so the newest "
        "file of the repository is taken.",
    ),
}

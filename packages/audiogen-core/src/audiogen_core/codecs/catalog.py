"""The codecs that can be fetched by name.

Revisions are the newest commits of the two repositories. The hashes are those that the hub states
for these files (its pages blob/<revision>/model.safetensors).
"""

from __future__ import annotations

from audiogen_core.models import FileSpec, ModelSpec

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
}

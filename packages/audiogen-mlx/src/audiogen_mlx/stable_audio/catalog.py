"""The Stable Audio models that can be fetched by name, and the text encoder they share.

Revisions are commits under which the files are found in public use; the hub states their hashes.
"""

from __future__ import annotations

from audiogen_core.models import FileSpec, ModelSpec, Shipped

_LICENSE = "Stability AI Community License"
_TERMS = (
    "Free below one million US dollars of yearly revenue. Gated: accept the terms on the page, "
    "then log in with `hf auth login`."
)
_SMALL = "dc620d91535857b72ebb59b4ca45978db6d417f5"

CATALOG: dict[str, ModelSpec | Shipped] = {
    "demo": Shipped(
        name="demo",
        family="stable-audio",
        package="audiogen_mlx",
        folder="data/demo-stable-audio",
        license="Apache-2.0",
        note="For the command stable-audio. A toy that has heard composed music only; works offline at once.",
    ),
    "stable-audio-open-small": ModelSpec(
        name="stable-audio-open-small",
        family="stable-audio",
        repo="stabilityai/stable-audio-open-small",
        revision=_SMALL,
        files=(FileSpec("model_config.json"), FileSpec("model.safetensors")),
        license=_LICENSE,
        note=_TERMS,
    ),
    "stable-audio-open-small-base": ModelSpec(
        name="stable-audio-open-small-base",
        family="stable-audio",
        repo="stabilityai/stable-audio-open-small",
        revision=_SMALL,
        files=(FileSpec("base_model_config.json"), FileSpec("base_model.ckpt")),
        license=_LICENSE,
        note=_TERMS,
    ),
    "stable-audio-open-1.0": ModelSpec(
        name="stable-audio-open-1.0",
        family="stable-audio",
        repo="stabilityai/stable-audio-open-1.0",
        revision="f21265c1e2710b3bd2386596943f0007f55f802e",
        files=(FileSpec("model_config.json"), FileSpec("model.safetensors")),
        license=_LICENSE,
        note=_TERMS,
    ),
}

TEXT_ENCODERS: dict[str, ModelSpec] = {
    "t5-base": ModelSpec(
        name="t5-base",
        family="t5",
        repo="google-t5/t5-base",
        revision="a9723ea7f1b39c1eae772870f3b547bf6ef7e6c1",
        files=(FileSpec("config.json"), FileSpec("tokenizer.json"), FileSpec("model.safetensors")),
        license="Apache-2.0",
    ),
}

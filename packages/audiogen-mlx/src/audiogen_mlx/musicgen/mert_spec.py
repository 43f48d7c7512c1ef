"""Where MERT is fetched from. It belongs to no MusicGen checkpoint and has its own authors and licence."""

from __future__ import annotations

from audiogen_core.models import FileSpec, ModelSpec

MERT = ModelSpec(
    name="mert-v1-95m",
    family="mert",
    repo="m-a-p/MERT-v1-95M",
    revision="12af15fef9d0ac838c3f475bfbbf26d2060dd4f5",
    files=(
        FileSpec(
            "config.json",
            size=1_817,
            sha256="ea2627c4c7825cd66f3c944b6b966331604c35928174e0100cd4a82829424e32",
        ),
        FileSpec(
            "pytorch_model.bin",
            size=377_552_987,
            sha256="a2b8b747f72c06e0595aeae41ae5473f4364938c6b39b2c58be38c48e6bd3fcd",
        ),
    ),
    license="CC-BY-NC-4.0",
    note="Needed for style conditioning alone, and fetched when a style is first given.",
)
"""The MERT that musicgen-style was trained with; its README of that commit states the licence."""

"""The picture in README.md: waveform and spectrogram of a clip, in few colours, so that the file is small.

uv run audiogen-mlx musicgen "slow piano in C minor" -m demo -o first.wav --seed 1
uv run python docs/hooks/picture.py first.wav docs/assets/first.png
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from PIL import Image

from audiogen_core import Audio, plot

WIDTH, COLOURS = 900, 48


def main(clip: str, picture: str) -> None:
    """Draw a clip and save the drawing with a palette."""
    with tempfile.TemporaryDirectory() as place:
        drawn = plot.overview(Audio.load(clip), Path(place, "drawn.png"), title=Path(clip).name)
        with Image.open(drawn) as full:
            small = full.convert("RGB").resize((WIDTH, round(WIDTH * full.height / full.width)))
            small.quantize(COLOURS, dither=Image.Dither.NONE).save(picture, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

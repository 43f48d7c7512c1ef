"""The picture in README.md: waveform and spectrogram of a clip, on the ground of the page, light or dark, and
in few colours, so that the file is small.

uv run audiogen-mlx musicgen "slow piano in C minor" -m demo -o first.wav --seed 1
uv run python docs/hooks/picture.py first.wav docs/assets/first.png
"""

from __future__ import annotations

import io
import sys

from matplotlib import rc_context
from PIL import Image
from sounds import ON_ANY_PAGE

from audiogen_core import Audio, plot

WIDTH, COLOURS = 900, 64


def main(clip: str, picture: str) -> None:
    """Draw a clip and save the drawing with a palette."""
    drawn = io.BytesIO()
    with rc_context(ON_ANY_PAGE | {"axes.facecolor": "none"}):
        figure = plot.figure(Audio.load(clip))
        for axis in figure.axes:
            for line in (*axis.get_xgridlines(), *axis.get_ygridlines()):
                line.set_alpha(0.3)
        figure.savefig(drawn, format="png")
    with Image.open(drawn) as full:
        small = full.resize((WIDTH, round(WIDTH * full.height / full.width)))
        small.quantize(COLOURS, dither=Image.Dither.NONE).save(picture, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Music made for trying things: a composer and an additive synthesiser in plain numpy.

Free of anybody's rights, offline, hundreds of times faster than real time, and captioned. Notes repeat
exactly and start on the frames of the demo codec (75 Hz), so small models learn it quickly. It is music
for demonstrations and tests, not a substitute for real recordings.
"""

from audiogen_core.compose.folder import write_folder
from audiogen_core.compose.piece import TEMPI, Piece, check_style, compose, render
from audiogen_core.compose.styles import DEFAULT_STYLES, HELD_OUT_STYLES, STYLES

__all__ = [
    "DEFAULT_STYLES",
    "HELD_OUT_STYLES",
    "STYLES",
    "TEMPI",
    "Piece",
    "check_style",
    "compose",
    "render",
    "write_folder",
]

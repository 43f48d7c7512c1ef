"""MusicGen: text, melody and style to music."""

"""How codes are drawn when nobody says how."""

from audiogen_core.sampling import Sampling

SAMPLING = Sampling(temperature=0.9, top_k=32)
"""Colder than the numbers big models are drawn with: a model of minutes of training gives many unlikely codes
a little chance each, and together they break the music up."""

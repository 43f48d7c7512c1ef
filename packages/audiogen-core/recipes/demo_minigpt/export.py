"""A trained run as a folder for generating alone: `python export.py RUN -o FOLDER`."""

from __future__ import annotations

import argparse
from pathlib import Path

from audiogen_core.sampling import Sampling
from audiogen_minigpt import checkpoint

SAMPLING = Sampling(temperature=0.6, top_k=32)
"""Nearer to held-out music than 0.9: see the README of the recipes."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Export the demo model of audiogen-minigpt.")
    parser.add_argument("run", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True, help="a folder that is not there yet")
    options = parser.parse_args()
    print(checkpoint.write_light(checkpoint.find(options.run), options.out, SAMPLING))


if __name__ == "__main__":
    main()

"""`python -m audiogen_minigpt`, also under torchrun."""

from audiogen_minigpt.cli import main

main()

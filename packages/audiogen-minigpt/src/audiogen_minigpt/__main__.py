"""The command `audiogen-minigpt`, which is `python -m audiogen_minigpt`, and what torchrun starts."""

from audiogen_core.start import start


def main() -> None:
    """Run the command line."""
    start("audiogen_minigpt.cli")


if __name__ == "__main__":
    main()

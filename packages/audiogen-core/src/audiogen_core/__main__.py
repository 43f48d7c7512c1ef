"""The command `audiogen-core`, which is `python -m audiogen_core`, too."""

from audiogen_core.start import start


def main() -> None:
    """Run the command line."""
    start("audiogen_core.main")


if __name__ == "__main__":
    main()

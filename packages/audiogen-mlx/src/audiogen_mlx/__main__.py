"""The command `audiogen-mlx`, which is `python -m audiogen_mlx`, too."""

from audiogen_core.start import start


def main() -> None:
    """Run the command line."""
    start("audiogen_mlx.cli")


if __name__ == "__main__":
    main()

"""The command `audiogen-onnx`, which is `python -m audiogen_onnx`, too."""

from audiogen_core.start import start


def main() -> None:
    """Run the command line."""
    start("audiogen_onnx.cli")


if __name__ == "__main__":
    main()

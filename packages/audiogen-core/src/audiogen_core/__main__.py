"""`python -m audiogen_core` is the command `audiogen-core`."""

from audiogen_core.main import main

if __name__ == "__main__":
    main()

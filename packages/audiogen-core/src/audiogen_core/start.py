"""Where programs start: what takes a while, importing them, is done where Ctrl-C is caught already.

Nothing is imported here before it is needed.
"""

import sys
from importlib import import_module


def start(module: str) -> None:
    """Import the module of a package's command and run its `main`. An interrupt ends it in one line."""
    try:
        import_module(module).main()
    except KeyboardInterrupt:
        if "--json" in sys.argv:
            sys.stdout.write('{"error": "interrupted", "kind": "KeyboardInterrupt"}\n')
            sys.stdout.flush()
        sys.stderr.write("interrupted\n")
        raise SystemExit(130) from None

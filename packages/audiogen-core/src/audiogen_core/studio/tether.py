"""Run a program's module that ends when its standard input does: python -m ...tether MODULE ARGUMENT...

Whoever started it holds the other end, and so nothing is left of a server that was killed.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
from threading import Thread


def _wait() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    Thread(target=_wait, daemon=True).start()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)

"""What holds for all tests."""

from __future__ import annotations

import signal

# A shell that runs the tests in the background has them ignore SIGINT, and their children would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

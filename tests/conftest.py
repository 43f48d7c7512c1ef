"""What holds for all tests."""

from __future__ import annotations

import signal

import hypothesis

# A shell that runs the tests in the background has them ignore SIGINT, and their children would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says how busy the machine is, and nothing of the code.
hypothesis.settings.register_profile("timeless", deadline=None)
hypothesis.settings.load_profile("timeless")

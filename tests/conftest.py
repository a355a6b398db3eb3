"""Settings shared by all tests."""

import os
import signal

import pytest
from hypothesis import settings

settings.register_profile("laws", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("laws")

# What the tests print does not depend on the terminal that they are started from.
for variable in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
    os.environ.pop(variable, None)
os.environ["TERM"] = "xterm-256color"


@pytest.fixture
def control_c():
    """Hear Control-C as in a terminal; what a shell runs in the background is told to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)

"""Whether this process is a forked child, noted from the moment lowprec is imported.

Threads do not survive a fork, and GNU OpenMP ends the child that tries to use them. Numba's own
threads may have been started before, so this must not wait for the kernels.
"""

from __future__ import annotations

import os

_is_forked = False


def _note_fork() -> None:
    global _is_forked
    _is_forked = True


def is_forked() -> bool:
    """Return whether this process has been forked since it imported lowprec."""
    return _is_forked


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)

"""Kernels: the only place that imports Numba.

`scalar_rounder` serves a user's own compiled functions. `rules` are the rules on vectors, and
`plans` says what a kernel needs to know; from which magnitude on a mode overflows is decided in
`lowprec.rounding.overflow_rule`. Random bits are made by `philox`, from a key and an index.
"""

import gc as _gc

_collects = _gc.isenabled()
_gc.disable()  # Numba's import makes many objects, and no garbage
try:
    from lowprec.kernels.scalar import scalar_rounder as scalar_rounder
finally:
    if _collects:
        _gc.enable()

__all__ = ["scalar_rounder"]

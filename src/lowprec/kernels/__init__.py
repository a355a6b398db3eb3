"""Kernels: the only place that imports Numba.

`scalar_rounder` serves a user's own compiled functions; the rest is for `lowprec.conversion`.
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

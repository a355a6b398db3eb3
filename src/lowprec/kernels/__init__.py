"""Kernels: the only place that imports Numba.

`scalar_rounder` serves a user's own compiled functions; the rest is for `lowprec.conversion`.
"""

from lowprec.kernels.scalar import scalar_rounder as scalar_rounder

__all__ = ["scalar_rounder"]

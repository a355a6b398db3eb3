"""Kernels of matrix products whose accumulator is rounded at every step."""

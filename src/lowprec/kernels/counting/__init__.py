"""Kernels that count: statistics of a measurement, and of a recorded tensor."""

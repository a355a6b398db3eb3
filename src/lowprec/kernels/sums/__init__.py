"""Kernels of sums in every order."""

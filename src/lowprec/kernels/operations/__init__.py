"""Kernels of arithmetic: the rule of each operation, its events, and the loops that apply it."""

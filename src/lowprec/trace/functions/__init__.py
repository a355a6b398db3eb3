"""NumPy's functions in a format: a table from each to what it is for traced values.

A handler takes the engine and the function's arguments. Functions that only move elements are
listed; functions that compute are written with traced operations, so that each of their roundings
is one of the line that called them.
"""

from lowprec.trace.functions import (
    choices,
    factorizations,
    formulas,
    moves,
    products,
    statistics,
    sums,
)
from lowprec.trace.functions.table import FUNCTIONS

__all__ = ["FUNCTIONS"]

del choices, factorizations, formulas, moves, products, statistics, sums

"""Functions of one narrow operand, by looking results up: one gather an element.

Each entry of a table holds the bits of a float32 result whose low six bits are zero, and in their
place where its kind of result is counted: ten bits of a word, so that counting takes one shift and
one addition.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.kernels.compiler import from_dtype, numba, types
from lowprec.kernels.loops import compile_as

if TYPE_CHECKING:
    from collections.abc import Callable

KINDS = 6  # of results that can be told apart
LOW_BITS = 6  # of a result, that hold its kind
_COUNTER_BITS = 10
_MASK = np.uint32((1 << LOW_BITS) - 1)
_BLOCK = (1 << _COUNTER_BITS) - 1  # no counter overflows in one block
_COUNTER = np.uint64(_BLOCK)

Array = np.ndarray[Any, Any]


def pack(results: Array, kinds: Array) -> Array:
    """Return the table for these results.

    Parameters
    ----------
    results : numpy.ndarray of float32, shape (n,)
        The result for each code.
    kinds : numpy.ndarray of integers below `KINDS`, shape (n,)
        Which kind of result each is.

    Returns
    -------
    numpy.ndarray of uint32, shape (n,)
        What `make_lookup`'s loops read.
    """
    bits = results.view(np.uint32)
    assert not (bits & _MASK).any(), "results must leave their low bits free"
    return bits | (kinds * _COUNTER_BITS).astype(np.uint32)


@functools.cache
def make_lookup(codes: np.dtype[Any], parallel: bool = False) -> Callable[..., None]:
    """Return ``lookup(table, codes, out, counts, chunks)`` for codes of uint8 or uint16.

    It writes the bits of the results to `out`, of uint32, and adds to `counts`, an int64 array of
    shape (chunks, `KINDS`), how many results of each kind there were. The work is cut into `chunks`
    pieces; a parallel loop shares them among threads.
    """
    words = types.Array(types.uint32, 1, "C")
    code_array = types.Array(from_dtype(codes), 1, "C", readonly=True)
    table = types.Array(types.uint32, 1, "C", readonly=True)
    counts = types.Array(types.int64, 2, "C")
    signature = types.void(table, code_array, words, counts, types.int64)
    return compile_as(f"lookup|{codes}", _lookup, signature, parallel)


def _lookup(table: Array, codes: Array, out: Array, counts: Array, chunks: int) -> None:
    """Look up block by block; slices, for then Numba knows that no index is negative."""
    for k in numba.prange(chunks):
        end = (k + 1) * codes.size // chunks
        for begin in range(k * codes.size // chunks, end, _BLOCK):
            stop = min(end, begin + _BLOCK)
            block, results = codes[begin:stop], out[begin:stop]
            counters = np.uint64(0)
            for i in range(block.size):
                entry = table[block[i]]
                results[i] = entry & ~_MASK
                counters += np.uint64(1) << np.uint64(entry & _MASK)
            for kind in range(KINDS):
                counts[k, kind] += np.int64(
                    (counters >> np.uint64(kind * _COUNTER_BITS)) & _COUNTER
                )

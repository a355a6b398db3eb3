"""Random bits from a counter: Philox4x32-7, over `Lanes`.

Seven rounds are the fewest with which Philox4x32 passes BigCrush (table 2 of the paper).

An element's random bits depend on the key and its index in C order alone. Up to 16 bits are taken
from 16-bit halves of the generator's words, which serves 128 elements a block of 16 counters, more
from whole words, 64 elements a block: element `i` of a block has lane ``i % 16`` (its counter),
word ``i // 16 % 4`` and, in halves, the low or the high half for ``i // 64``.

References
----------
Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3 (SC'11).
"""

from __future__ import annotations

from lowprec.kernels.lanes import Lanes, interleave, select

LANES = 16
_ROUNDS = 7
_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


def philox(counter: Lanes, key: Lanes) -> list[Lanes]:
    """Return four random 32-bit words for a 64-bit counter and key, each in a 64-bit lane.

    Words stay in 64-bit lanes because the processor's 32-bit multiplication reads and writes there.
    """
    x0, x1, x2, x3 = counter & _WORD, counter >> 32, counter & 0, counter & 0
    key0, key1 = key & _WORD, key >> 32
    for _ in range(_ROUNDS):
        product0, product1 = x0 * _MULTIPLIERS[0], x2 * _MULTIPLIERS[1]
        k0, k1 = key0.splat(counter.count), key1.splat(counter.count)
        x0, x1 = (product1 >> 32) ^ x1 ^ k0, product1 & _WORD
        x2, x3 = (product0 >> 32) ^ x3 ^ k1, product0 & _WORD
        key0, key1 = (key0 + _WEYL[0]) & _WORD, (key1 + _WEYL[1]) & _WORD
    return [x0, x1, x2, x3]


def element_bits(index: Lanes, key: Lanes, from_halves: bool) -> Lanes:
    """Return the 16 or 32 random bits of one element."""
    block = index >> (7 if from_halves else 6)
    x0, x1, x2, x3 = philox((block << 4) + (index & (LANES - 1)), key)
    is_odd, is_upper = ~(index & 16).equals(0), ~(index & 32).equals(0)
    word = select(is_upper, select(is_odd, x3, x2), select(is_odd, x1, x0)).resized(32)
    if not from_halves:
        return word
    return select((index & 64).equals(0), word & 0xFFFF, word >> 16)


def block_bits(index: Lanes, key: Lanes, from_halves: bool) -> list[Lanes]:
    """Return the random bits of the whole block from `index` on, a vector every 16 elements."""
    first = index >> (3 if from_halves else 2)
    even = first.splat(LANES // 2) + (first.ramp(LANES // 2) << 1)
    words = [
        interleave(a, b) for a, b in zip(philox(even, key), philox(even + 1, key), strict=True)
    ]
    if not from_halves:
        return words
    return [word & 0xFFFF for word in words] + [word >> 16 for word in words]

"""What a faster rule for blocks knows of its format: when it is compiled, and when it runs."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from lowprec.kernels.lanes import Lanes

ONE, SEVERAL, LONG = "one", "several", "long"  #: rows of vectors in a block
FEW = 8  #: magnitudes that the rule ``few`` takes at most

_FIELD = 2047 << 52


class BlockConstants(NamedTuple):
    """What a rule knows of its format at run time: unsigned integers of 64 bits.

    Exponents are given as they are added to the bits of a float: of float32 in the rule ``power``,
    else of float64.
    """

    lowest: int = 0  # of amax, as float32 bits: below, and from lowest + span on, another rule
    span: int = 0
    grows: int = 0  # added to amax, it carries where a rule takes the larger power
    emax: int = 0
    emin: int = 0
    dropped: int = 0  # bits of a float's significand below the elements'
    top: int = 0  # bits of M
    max_code: int = 0
    sign_shift: int = 0  # from a float's sign to a code's
    zero_scale: int = 0  # float64 bits of the scale of a block of zeros
    divisor: int = 0  # float64 bits of M·g
    tensor: int = 0  # float64 bits of g
    scale_emin: int = 0
    scale_dropped: int = 0
    scale_top: int = 0  # float64 bits of the largest scale
    scale_least: int = 0  # and of the smallest positive one
    quick_emin: int = 0  # of few and quotient: emin, dropped and top as added to float32
    quick_dropped: int = 0
    quick_top: int = 0
    middles: tuple[int, ...] = ()  # of few: float64 bits of the midpoints, and of the values
    values: tuple[int, ...] = ()

    def array(self) -> np.ndarray[Any, Any]:
        """Return them as kernels read them."""
        fixed = [int(field) & (1 << 64) - 1 for field in self[:-2]]
        few = [*self.middles, *[_FIELD] * (FEW - len(self.middles))]
        few += [*self.values, *[0] * (FEW - len(self.values))]
        return np.array(fixed + few, np.uint64)


_FIXED = len(BlockConstants._fields) - 2


class BlockRule(NamedTuple):
    """What a kernel knows when it is compiled."""

    kind: str  # power, few or quotient
    is_column: bool  # each lane has a scale of its own
    rows: str  # of vectors in a block: one; several in memory; or a long row, cut into many
    lanes: int
    style: int  # as in Grid
    target: str  # float32, or the dtype of codes
    strict: int = 0  # of few: bit i says that midpoint i belongs to the smaller element
    is_quick: int = 0  # of few and quotient: 1 if float32 may try before


class Fields:
    """The constants at an address as LLVM values, which no store can change."""

    def __init__(self, builder: Any, address: Any) -> None:
        first = builder.inttoptr(address, address.type.as_pointer())
        places = [builder.gep(first, [address.type(i)]) for i in range(_FIXED + 2 * FEW)]
        self.lanes = [Lanes(builder, builder.load(place)) for place in places]

    def __getattr__(self, name: str) -> Lanes:
        return self.lanes[BlockConstants._fields.index(name)]

    def few(self, name: str) -> list[Lanes]:
        """Return the midpoints or the values of the rule ``few``."""
        start = _FIXED + (FEW if name == "values" else 0)
        return self.lanes[start : start + FEW]

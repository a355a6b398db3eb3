"""How a sum is formed: the accumulator as a value."""

from __future__ import annotations

import dataclasses
import functools
import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.common.names import one_of
from lowprec.formats import Format, FormatLike, checked_overflow, float32, float64, get_format
from lowprec.rounding import Overflow, Rounding, is_usual

if TYPE_CHECKING:
    from lowprec.common.randomness import RNGLike

__all__ = ["Accumulator", "AccumulatorLike", "as_accumulator", "result_dtype"]

ORDERS = ("sequential", "blocked", "pairwise", "kahan", "exact", "blas")


@dataclasses.dataclass(frozen=True)
class Accumulator:
    """How a sum is formed: in which format, in which order, and where it is rounded.

    Terms are exact: they are not rounded before they are added, and every step of a sum is rounded
    once, from its exact value. The empty sum is +0.

    Parameters
    ----------
    fmt : Format, str or dtype
        The format of the running sum: of at most 51 bits of precision, or float64.
    order : str
        ``sequential``: the rounded first term, then acc ← ○(acc + term), in C order.
        ``blocked``: every `block` terms are summed sequentially in `inner`, then
        acc ← ○(acc + block's sum); the last block may be short.
        ``pairwise``: adjacent pairs, level by level, an odd one carried up.
        ``kahan``: y = ○(x - c), t = ○(s + y), c = ○(○(t - s) - y), s = t; the sum is s.
        ``exact``: one rounding of the exact sum.
        ``blas``: float32 alone, in NumPy's own order, which may change with the machine.
    block : int, optional
        Terms of a block.
    inner : Format, str or dtype, optional
        The format within blocks; `fmt` by default.
    fused : bool
        Whether products are added exactly; otherwise each is rounded first (within blocks: to
        `inner`).
    rounding : Rounding or str
        As for `round_to`. Each of an output's roundings, numbered in the order in which they
        happen, draws its own random bits (32, or ``52 - precision`` where that is less): they
        depend on the key, the output's index in C order and that number alone.
    overflow : Overflow or str
        As for `round_to`. NaN stays NaN, also in a format without it.
    rng : None, int, numpy.random.SeedSequence or numpy.random.Generator
        Where the stochastic modes draw one key from, at every call.

    Raises
    ------
    ValueError
        If the parts contradict each other.

    Examples
    --------
    >>> from lowprec import sum
    >>> ones = np.ones(5000)
    >>> float(sum(ones, Accumulator("float16"))), float(sum(ones, "bfloat16"))
    (2048.0, 256.0)
    >>> float(sum(ones, Accumulator("float16", order="pairwise")))
    5000.0

    References
    ----------
    Higham (2002), Accuracy and Stability of Numerical Algorithms, chapter 4.
    """

    fmt: FormatLike = "float32"
    order: str = "sequential"
    block: int | None = None
    inner: FormatLike | None = None
    fused: bool = True
    rounding: Rounding | str = "ties_to_even"
    overflow: Overflow | str = "ieee"
    rng: RNGLike = None

    def __post_init__(self) -> None:
        fields: dict[str, Any] = {
            "fmt": get_format(self.fmt),
            "fused": bool(self.fused),
            "rounding": Rounding(self.rounding),
            "overflow": Overflow(self.overflow),
        }
        one_of(self.order, ORDERS, "order")
        if self.order == "blocked":
            fields["block"] = _checked_block(self.block)
            fields["inner"] = get_format(self.fmt if self.inner is None else self.inner)
        elif self.block is not None or self.inner is not None:
            raise ValueError(
                f"block and inner belong to order='blocked', not to {self.order!r}; leave them out"
            )
        for name, value in fields.items():
            object.__setattr__(self, name, value)
        self._check_formats()

    def __hash__(self) -> int:
        return hash((self.fmt, self.block))  # these tell most apart, and others are slow to hash

    def _check_formats(self) -> None:
        assert isinstance(self.rounding, Rounding)
        assert isinstance(self.overflow, Overflow)
        usual = is_usual(self.rounding, self.overflow)
        for fmt in self.formats:
            checked_overflow(self.overflow, fmt)
            if fmt.precision > 51 and not (fmt == float64 and usual):
                raise ValueError(
                    f"{str(fmt)!r} has precision {fmt.precision}; accumulators have at most 51, "
                    "or are float64 with rounding='ties_to_even' and overflow='ieee'"
                )
        if self.order == "blas" and not (self.fmt == float32 and usual and self.fused):
            raise ValueError(
                "order='blas' is NumPy's own float32: it has no other format, rounding, overflow "
                "or unfused products; use order='sequential'"
            )

    @property
    def formats(self) -> tuple[Format, Format]:
        """The format of the running sum, and the one within blocks."""
        assert isinstance(self.fmt, Format)
        return self.fmt, self.inner if isinstance(self.inner, Format) else self.fmt


AccumulatorLike = Accumulator | FormatLike


def _checked_block(block: int | None) -> int:
    if block is None:
        raise ValueError("order='blocked' needs block, the number of terms that are summed first")
    block = operator.index(block)
    if block < 1:
        raise ValueError(f"block is {block}; use 1 or more terms")
    return block


def as_accumulator(accumulator: AccumulatorLike) -> Accumulator:
    """Return an accumulator; a format stands for the sequential one."""
    if isinstance(accumulator, Accumulator):
        return accumulator
    return _plain(get_format(accumulator))


@functools.cache
def _plain(fmt: Format) -> Accumulator:
    return Accumulator(fmt)


@functools.cache
def result_dtype(fmt: Format) -> np.dtype[Any]:
    """Return the dtype of sums in a format: float32 where it holds them all, else float64."""
    return np.dtype(np.float32 if fmt.fits(float32) else np.float64)

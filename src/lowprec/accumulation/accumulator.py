"""How a sum is formed: the accumulator as a value."""

from __future__ import annotations

import dataclasses
import functools
import operator
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from lowprec.common.names import one_of
from lowprec.conversion.requests import checked_random_bits
from lowprec.formats import Format, FormatLike, float32, float64, get_format
from lowprec.rounding import (
    Overflow,
    OverflowLike,
    Rounding,
    RoundingLike,
    checked_overflow,
    is_usual,
)

if TYPE_CHECKING:
    from lowprec.common.randomness import RNGLike
    from lowprec.kernels.sums.loop_choice import ColumnSums, RowSums

Order = Literal["sequential", "blocked", "pairwise", "kahan", "exact", "aligned", "blas"]
ORDERS: tuple[str, ...] = get_args(Order)
LOWEST_EXPONENT = -132  # of aligned sums; published models have -132, -133 and -126


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
        ``aligned``: as tensor cores do. Every `block` terms and the sum so far are cut to
        `fraction_bits` below the largest exponent among them, toward zero, added exactly as
        integers, and rounded once; `tensor_core` has the parameters of real ones.
        ``blas``: float32 alone, in NumPy's own order, which may change with the machine: for
        products that of two separate buffers (NumPy hands the product of an array and its own
        transpose to another routine of the BLAS).
    block : int, optional
        Terms of a block.
    inner : Format, str, dtype or Accumulator, optional
        The format within blocks, `fmt` by default; or how a block is summed.
    fused : bool
        Whether products are added exactly; otherwise each is rounded first (within blocks: to
        `inner`).
    rounding : Rounding or str
        As for `round_to`. Each of an output's roundings, numbered in the order in which they
        happen, draws its own random bits (`random_bits` of them, by default 32, or
        ``52 - precision`` where that is less): they
        depend on the key, the output's index in C order and that number alone.
    overflow : Overflow or str
        As for `round_to`. NaN stays NaN, also in a format without it.
    rng : None, int, numpy.random.SeedSequence or numpy.random.Generator
        Where the stochastic modes draw one key from, at every call.
    fraction_bits : int, optional
        Of ``aligned``: the bits k that are kept below the largest exponent.
    lowest_exponent : int
        Of ``aligned``: the least exponent that terms are aligned to.
    inputs : Format, str or dtype, or two of them, optional
        The only factors whose products are taken; `dot` and `matmul` convert to them by default.
    random_bits : int, optional
        How many random bits each rounding of the stochastic modes draws, from 1 to 32 and at most
        ``52 - precision``. Up to 16 are drawn for half the price.

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
    order: Order = "sequential"
    block: int | None = None
    inner: FormatLike | Accumulator | None = None
    fused: bool = True
    rounding: RoundingLike = "ties_to_even"
    overflow: OverflowLike = "ieee"
    rng: RNGLike = None
    fraction_bits: int | None = None
    lowest_exponent: int = LOWEST_EXPONENT
    inputs: FormatLike | tuple[FormatLike, FormatLike] | None = None
    random_bits: int | None = None

    def __post_init__(self) -> None:
        fields: dict[str, Any] = {
            "fmt": get_format(self.fmt),
            "fused": bool(self.fused),
            "rounding": Rounding(self.rounding),
            "overflow": Overflow(self.overflow),
        }
        one_of(self.order, ORDERS, "order")
        if self.order in ("blocked", "aligned"):
            fields["block"] = _checked_block(self.block, self.order)
        elif self.block is not None:
            raise ValueError(
                "block and inner belong to order='blocked' (block to 'aligned' too), not to "
                f"{self.order!r}; leave them out"
            )
        if self.order == "blocked":
            fields["inner"] = self._checked_inner(fields["fmt"])
        elif self.inner is not None:
            raise ValueError(
                f"block and inner belong to order='blocked', not to {self.order!r}; leave them out"
            )
        if self.inputs is not None or isinstance(fields.get("inner"), Accumulator):
            fields["inputs"] = self._checked_inputs(fields.get("inner"))
        for name, value in fields.items():
            object.__setattr__(self, name, value)
        self._check_formats()
        self._check_random_bits()
        self._check_alignment()

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

    def _check_random_bits(self) -> None:
        widest = max(fmt.precision for fmt in self.formats)
        most = min(32, 52 - widest) if self.is_stochastic else 32
        object.__setattr__(self, "random_bits", checked_random_bits(self.random_bits, most))

    def _checked_inner(self, fmt: Format) -> Format | Accumulator:
        if not isinstance(self.inner, Accumulator):
            return get_format(fmt if self.inner is None else self.inner)
        if not self.fused:
            raise ValueError(
                "products are formed within blocks; ask inner for fused=False, not the outer sum"
            )
        return self.inner

    def _checked_inputs(self, inner: Format | Accumulator | None) -> tuple[Format, Format] | None:
        asked = self.inputs
        if asked is None:
            return inner.inputs if isinstance(inner, Accumulator) else None  # type: ignore[return-value]
        pair = asked if isinstance(asked, tuple) else (asked, asked)
        if len(pair) != 2:
            raise ValueError(f"inputs has {len(pair)} formats; a product has two factors")
        return get_format(pair[0]), get_format(pair[1])

    def _check_alignment(self) -> None:
        if self.order != "aligned":
            if self.fraction_bits is not None or self.lowest_exponent != LOWEST_EXPONENT:
                raise ValueError(
                    "fraction_bits and lowest_exponent belong to order='aligned', not to "
                    f"{self.order!r}; leave them out"
                )
            return
        assert isinstance(self.rounding, Rounding)
        assert self.block is not None
        if self.rounding.is_stochastic:
            raise ValueError(
                f"an aligned sum has one rounding, which is deterministic, not "
                f"{self.rounding.value!r}; use 'ties_to_even' or 'toward_zero'"
            )
        if self.fraction_bits is None:
            raise ValueError(
                "order='aligned' needs fraction_bits, the bits that are kept below the largest "
                "exponent; tensor_core('h100', …) has those of a real one"
            )
        if not self.fused:
            raise ValueError(
                "an aligned sum cuts exact products, so that fused=False has no meaning; leave it "
                "out, or use order='sequential'"
            )
        k = _integer(self.fraction_bits, "fraction_bits")
        lowest = _integer(self.lowest_exponent, "lowest_exponent")
        width = k + 2 + self.block.bit_length()
        if k < 1 or width > 62:
            raise ValueError(
                f"fraction_bits is {k} with {self.block} terms a block: integers of 62 bits hold "
                f"k + 2 + ⌈log2(block + 1)⌉, here {width}; use 1 to {60 - self.block.bit_length()}"
            )
        if not -800 <= lowest <= 800:
            raise ValueError(f"lowest_exponent is {lowest}; use -800 to 800")
        object.__setattr__(self, "fraction_bits", k)
        object.__setattr__(self, "lowest_exponent", lowest)

    @property
    def formats(self) -> tuple[Format, Format]:
        """The format of the running sum, and the one within blocks."""
        assert isinstance(self.fmt, Format)
        if isinstance(self.inner, Accumulator):
            return self.fmt, self.inner.formats[0]
        return self.fmt, self.inner if isinstance(self.inner, Format) else self.fmt

    @property
    def is_nested(self) -> bool:
        """Whether blocks are summed by an accumulator of their own."""
        return isinstance(self.inner, Accumulator)

    @property
    def is_stochastic(self) -> bool:
        """Whether roundings draw random bits."""
        assert isinstance(self.rounding, Rounding)
        return self.rounding.is_stochastic

    @functools.cached_property
    def unseeded(self) -> Accumulator:
        """The same without sources of random bits, on which no plan depends."""
        inner = self.inner.unseeded if isinstance(self.inner, Accumulator) else self.inner
        if self.rng is None and inner is self.inner:
            return self
        return dataclasses.replace(self, rng=None, inner=inner)

    def row_sums(self, source: str) -> RowSums | None:
        """Return what sums rows of contiguous elements of a dtype, or None if nothing does."""
        from lowprec.kernels.sums.loop_choice import row_sums  # imports Numba

        assert isinstance(self.rounding, Rounding)
        assert isinstance(self.overflow, Overflow)
        how = self.rounding, self.overflow, self.random_bits
        return row_sums(self.order, self.formats[0], *how, source)

    def column_sums(self) -> ColumnSums | None:
        """Return what sums rows of float32 that lie side by side, or None if nothing does."""
        from lowprec.kernels.sums.loop_choice import column_sums  # imports Numba

        assert isinstance(self.rounding, Rounding)
        assert isinstance(self.overflow, Overflow)
        how = self.formats, self.rounding, self.overflow
        return column_sums(self.order, self.block, *how)


AccumulatorLike = Accumulator | FormatLike


def _integer(x: Any, name: str) -> int:
    try:
        return operator.index(x)
    except TypeError:
        raise TypeError(f"{name} is {x!r}; it counts, so pass an int") from None


def _checked_block(block: int | None, order: str) -> int:
    if block is None:
        raise ValueError(f"order={order!r} needs block, the number of terms that are summed first")
    block = _integer(block, "block")
    if block < 1:
        raise ValueError(f"block is {block}; use 1 or more terms")
    return block


def as_accumulator(accumulator: AccumulatorLike) -> Accumulator:
    """Return an accumulator; a format stands for the sequential one."""
    if isinstance(accumulator, Accumulator):
        return accumulator
    return _plain(get_format(accumulator))


@functools.lru_cache(1024)
def _plain(fmt: Format) -> Accumulator:
    return Accumulator(fmt)


@functools.lru_cache(1024)
def result_dtype(fmt: Format) -> np.dtype[Any]:
    """Return the dtype of sums in a format: float32 where it holds them all, else float64."""
    return np.dtype(np.float32 if fmt.fits(float32) else np.float64)

"""Sums and products as an accumulator of some format forms them: sum, dot, matmul, error_bound."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import operator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowprec.conversion import draw_key, refuse_specials, round_to
from lowprec.formats import Format, FormatLike, float32, float64, get_format
from lowprec.rounding import Overflow, Rounding
from lowprec.sources import as_array, kernel_dtype

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import ArrayLike

    from lowprec.conversion import RNGLike

__all__ = ["Accumulator", "dot", "error_bound", "matmul", "sum"]

Array = np.ndarray[Any, Any]

ORDERS = ("sequential", "blocked", "pairwise", "kahan", "exact", "blas")
_ROWS = 64  # outputs are computed in blocks of so many rows and columns
_TERMS = 256  # of so many terms at a time
_ELEMENTS = 1 << 16  # of a temporary block of terms
_DEPTH, _HEIGHT, _WIDTH = 256, 256, 512  # blocks of the micro-kernels: terms, rows, columns
_LONGEST_BLOCK = 2048  # terms of an accumulator's block that these kernels take
_WHOLE = 1 << 18  # elements of an operand that is converted at once
_PRODUCT_KEY = 0x9E3779B97F4A7C15  # products draw from another stream than sums


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
        if self.order not in ORDERS:
            near = difflib.get_close_matches(str(self.order), ORDERS, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(f"{self.order!r} is no order; {hint}use one of {', '.join(ORDERS)}")
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

    def _check_formats(self) -> None:
        is_usual = self.rounding is Rounding.TIES_TO_EVEN and self.overflow is Overflow.IEEE
        for fmt in self._formats:
            if fmt.precision > 51 and not (fmt == float64 and is_usual):
                raise ValueError(
                    f"{str(fmt)!r} has precision {fmt.precision}; accumulators have at most 51, "
                    "or are float64 with rounding='ties_to_even' and overflow='ieee'"
                )
        if self.order == "blas" and not (self.fmt == float32 and is_usual and self.fused):
            raise ValueError(
                "order='blas' is NumPy's own float32: it has no other format, rounding, overflow "
                "or unfused products; use order='sequential'"
            )

    @property
    def _formats(self) -> tuple[Format, Format]:
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


def _as_accumulator(accumulator: AccumulatorLike) -> Accumulator:
    if isinstance(accumulator, Accumulator):
        return accumulator
    return _plain(get_format(accumulator))


@functools.cache
def _plain(fmt: Format) -> Accumulator:
    return Accumulator(fmt)


# Sums --------------------------------------------------------------------------------------------


def sum(  # noqa: A001
    x: ArrayLike,
    accumulator: AccumulatorLike,
    axis: int | tuple[int, ...] | None = None,
    keepdims: bool = False,
) -> Any:
    """Sum elements in C order along the reduced axes, every step rounded once.

    Parameters
    ----------
    x : array_like of real numbers, any shape
        The terms, each taken exactly; integers of at most 53 bits.
    accumulator : Accumulator, or Format, str or dtype
        How the sum is formed; a format stands for ``Accumulator(fmt)``.
    axis : int or tuple of int, optional
        Which axes to reduce, all by default.
    keepdims : bool
        Whether reduced axes stay, with one element.

    Returns
    -------
    numpy.ndarray, or a NumPy scalar
        Values of the accumulator's format: float32 where it holds them all, else float64.

    Raises
    ------
    ValueError
        If an integer has more than 53 bits.
    numpy.exceptions.AxisError
        If `x` has no such axis.

    Examples
    --------
    >>> sum([[0.1, 0.2], [0.3, 0.4]], "bfloat16", axis=1)
    array([0.30078125, 0.69921875], dtype=float32)
    """
    how = _as_accumulator(accumulator)
    array = as_array(x)
    axes = _reduced_axes(array.ndim, axis)
    kept = [d for d in range(array.ndim) if d not in axes]
    shape = [array.shape[d] for d in kept]
    terms = math.prod(array.shape[d] for d in axes)
    if how.order == "blas":
        result = np.add.reduce(array, axis=axes, dtype=np.float32)
    else:
        result = np.zeros(math.prod(shape), _result_dtype(how._formats[0]))
        if terms and result.size:
            _sum_rows(array.transpose(kept + list(axes)), terms, how, result)
    if keepdims:
        shape = [1 if d in axes else array.shape[d] for d in range(array.ndim)]
    return result.reshape(shape)[()]


def _reduced_axes(ndim: int, axis: int | tuple[int, ...] | None) -> tuple[int, ...]:
    if axis is None:
        return tuple(range(ndim))
    axes = axis if isinstance(axis, tuple) else (axis,)
    found = []
    for given in axes:
        place = operator.index(given)
        if not -ndim <= place < ndim:
            raise np.exceptions.AxisError(place, ndim)
        found.append(place % ndim)
    if len(set(found)) < len(found):
        raise ValueError(f"axis is {axis}, which names an axis twice")
    return tuple(sorted(found))


def _sum_rows(x: Array, terms: int, how: Accumulator, result: Array) -> None:
    """Sum every `terms` elements of `x` in C order into an element of `result`."""
    elements = x.reshape(-1) if x.flags.c_contiguous else x.flat
    work = _Work.of(how, terms)
    sums = max(1, _ELEMENTS // terms)
    for start in range(0, result.size, sums):
        stop = min(start + sums, result.size)

        def blocks(start: int = start, stop: int = stop) -> Iterator[tuple[Array, Array]]:
            step = min(terms, _ELEMENTS)
            for k in range(0, terms, step):
                end = stop * terms if step == terms else start * terms + min(k + step, terms)
                block = _exactly(elements[start * terms + k : end]).reshape(stop - start, -1)
                yield np.ones((1, block.shape[1])), block.T

        outputs = np.array([start])
        result[start:stop] = work.run(blocks(), outputs, stop - start)[0]


def _exactly(x: Array) -> Array:
    """Return numbers as float64, which must hold them."""
    if x.dtype.kind in "iu" and x.dtype.itemsize == 8 and x.size:
        largest = max(abs(int(x.min())), abs(int(x.max())))
        if largest > 2**53:
            raise ValueError(
                f"terms as large as {largest} need more than float64's 53 bits; "
                "pass x.astype('float64') to have them rounded first"
            )
    return x.astype(np.float64)


class _Work(NamedTuple):
    """An accumulator made ready: compiled loops with their constants and one key."""

    how: Accumulator
    terms: int
    state_size: int
    constants: Array
    accumulate: Callable[..., None]
    multiply: Callable[..., None] | None
    key: np.uint64

    @classmethod
    def of(cls, how: Accumulator, terms: int, products: bool = False) -> _Work:
        from lowprec.kernels import accumulators as kernels  # imports Numba

        assert isinstance(how.rounding, Rounding)
        assert isinstance(how.overflow, Overflow)
        rounding, overflow = how.rounding, how.overflow
        plans = [kernels.rounding_plan(fmt, rounding, overflow) for fmt in how._formats]
        return cls(
            how,
            terms,
            kernels.state_size(how.order, terms),
            np.stack([constants for _, constants in plans]),
            kernels.make_accumulation(how.order, plans[0][0], plans[1][0]),
            kernels.make_products(plans[1][0]) if products and not how.fused else None,
            np.uint64(draw_key(how.rng) if rounding.is_stochastic else 0),
        )

    def run(self, blocks: Iterable[tuple[Array, Array]], outputs: Array, columns: int) -> Array:
        """Return the sums of terms ``a[i, k] * b[k, j]`` that come in blocks along k.

        `outputs` holds the index of each row's first output in the whole result.
        """
        state = np.zeros((len(outputs), columns, self.state_size))
        first = 0
        for a, b in blocks:
            last = first + len(b) == self.terms
            if self.multiply is None:
                self._accumulate(a, b, state, first, last, outputs)
            else:
                products, one = np.empty(b.shape), np.ones((1, len(b)))
                key = self.key ^ np.uint64(_PRODUCT_KEY)
                for i in range(len(a)):
                    self.multiply(a[i], b, products, self.constants[1], first, outputs[i], key)
                    row = slice(i, i + 1)
                    self._accumulate(one, products, state[row], first, last, outputs[row])
            first += len(b)
        return state[..., 0]

    def _accumulate(
        self, a: Array, b: Array, state: Array, first: int, last: bool, outputs: Array
    ) -> None:
        block = self.how.block or 1
        self.accumulate(a, b, state, self.constants, block, first, last, outputs, self.key)


@functools.cache
def _result_dtype(fmt: Format) -> np.dtype[Any]:
    return np.dtype(np.float32 if fmt.fits(float32) else np.float64)


# Products ----------------------------------------------------------------------------------------


def dot(
    a: ArrayLike,
    b: ArrayLike,
    *,
    inputs: FormatLike = "bfloat16",
    accumulator: AccumulatorLike = "float32",
    output: FormatLike | None = None,
) -> Any:
    """Return the inner product of two vectors (of matrices: their product), as `matmul` does.

    Parameters
    ----------
    a, b : array_like of real numbers, one- or two-dimensional
        The factors.
    inputs, accumulator, output
        As for `matmul`.

    Returns
    -------
    NumPy scalar, or numpy.ndarray
        As for `matmul`.

    Raises
    ------
    ValueError
        As for `matmul`, and if an operand has more than two dimensions.

    Examples
    --------
    >>> float(dot([1, 2, 3], [4, 5, 6]))
    32.0
    """
    a, b = as_array(a), as_array(b)
    if a.ndim > 2 or b.ndim > 2:
        raise ValueError(
            f"dot takes vectors and matrices, not shapes {a.shape} and {b.shape}; "
            "use matmul for stacks of matrices"
        )
    return matmul(a, b, inputs=inputs, accumulator=accumulator, output=output)


def matmul(
    a: ArrayLike,
    b: ArrayLike,
    *,
    inputs: FormatLike = "bfloat16",
    accumulator: AccumulatorLike = "float32",
    output: FormatLike | None = None,
) -> Any:
    """Multiply matrices: elements rounded to `inputs`, products summed by `accumulator`.

    Parameters
    ----------
    a, b : array_like of real numbers
        Matrices, stacks of them that broadcast, or vectors, as for `numpy.matmul`, with any
        strides: a transposed matrix is as good as another.
    inputs : Format, str or dtype
        What elements are rounded to first, to nearest with ties to even.
    accumulator : Accumulator, or Format, str or dtype
        How products are summed, in the order of k; a format stands for ``Accumulator(fmt)``.
    output : Format, str or dtype, optional
        What the sums are rounded to at last, to nearest with ties to even.

    Returns
    -------
    numpy.ndarray, or a NumPy scalar for two vectors
        Values of `output`, by default of the accumulator's format: float32 where it holds them
        all, else float64. The same for any number of threads.

    Raises
    ------
    ValueError
        If shapes do not match; if the products of `inputs` are not exact in float64, and the
        accumulator is not float64 itself; if NaN goes to a format without NaN.

    Examples
    --------
    >>> a, b = np.ones((2, 4000)), np.ones((4000, 1))
    >>> float(matmul(a, b, accumulator="float16")[0, 0])
    2048.0
    >>> how = Accumulator("float16", order="blocked", block=16, inner="float32")
    >>> float(matmul(a, b, accumulator=how, output="float16")[0, 0])
    4000.0
    """
    how, fmt = _as_accumulator(accumulator), get_format(inputs)
    a, b = as_array(a), as_array(b)
    _check_products(fmt, how)
    if not fmt.has_nan:
        for operand in (a, b):
            refuse_specials(operand, "NaN" if fmt.signed else "NaN or negative")
    left, right, shape, squeezed = _matched(a, b)
    result = np.zeros(shape, _result_dtype(how._formats[0]))
    if result.size and left.shape[-1]:
        _multiply_stacks(left, right, result, fmt, how)
    if output is not None:
        result = _rounded_output(result, get_format(output))
    if squeezed:
        result = result.reshape([n for d, n in enumerate(shape, -len(shape)) if d not in squeezed])
    return result[()] if result.ndim == 0 else result


@functools.lru_cache(256)
def _check_products(fmt: Format, how: Accumulator) -> None:
    lowest = fmt.emin - (fmt.trailing_bits if fmt.subnormals else 0)
    if 2 * fmt.precision <= 53 and fmt.emax < 512 and lowest >= -537:
        return
    is_native = all(f == float64 for f in how._formats)
    if is_native and (not how.fused or how.order in ("sequential", "blocked", "kahan")):
        return
    raise ValueError(
        f"float64 does not hold every product of {str(fmt)!r}; use inputs='float32' or narrower, "
        "or accumulator='float64' with order 'sequential', 'blocked' or 'kahan', or fused=False"
    )


def _matched(a: Array, b: Array) -> tuple[Array, Array, tuple[int, ...], tuple[int, ...]]:
    """Return operands of at least two dimensions that broadcast, the shape of their product,
    and which of its dimensions are not the caller's."""  # noqa: D205, D209
    if a.ndim == 0 or b.ndim == 0:
        raise ValueError("matmul takes vectors and matrices, not scalars; use * and round_to")
    if a.ndim == b.ndim == 2 and a.shape[1] == b.shape[0]:
        return a, b, (a.shape[0], b.shape[1]), ()
    squeezed = (-2,) * (a.ndim == 1) + (-1,) * (b.ndim == 1)
    left = a[np.newaxis] if a.ndim == 1 else a
    right = b[:, np.newaxis] if b.ndim == 1 else b
    if left.shape[-1] != right.shape[-2]:
        raise ValueError(
            f"shapes {a.shape} and {b.shape} do not match: {left.shape[-1]} columns meet "
            f"{right.shape[-2]} rows"
        )
    stack = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    shape = (*stack, left.shape[-2], right.shape[-1])
    left = np.broadcast_to(left, stack + left.shape[-2:])
    return left, np.broadcast_to(right, stack + right.shape[-2:]), shape, squeezed


def _multiply_stacks(a: Array, b: Array, result: Array, fmt: Format, how: Accumulator) -> None:
    stack = result.shape[:-2]
    if how.order == "blas":
        for index in np.ndindex(stack):
            np.matmul(_as_inputs(a[index], fmt), _as_inputs(b[index], fmt), out=result[index])
        return
    rows = result.shape[-2]
    tiles = _tiles(how, fmt, 8 if rows > 4 else 4 if rows > 1 else 1)
    if tiles is not None:
        if not stack:
            tiles.multiply(a, b, result)
            return
        for index in np.ndindex(stack):
            tiles.multiply(a[index], b[index], result[index])
        return
    work = _Work.of(how, a.shape[-1], products=True)
    for number, index in enumerate(np.ndindex(stack)):
        first = number * result.shape[-2] * result.shape[-1]
        _multiply(a[index], b[index], result[index], fmt, work, first)


def _multiply(a: Array, b: Array, result: Array, fmt: Format, work: _Work, first: int) -> None:
    """Multiply two matrices block by block; output (0, 0) has the index `first`."""
    (rows, columns), terms = result.shape, a.shape[1]
    for i in range(0, rows, _ROWS):
        outputs = first + columns * np.arange(i, min(i + _ROWS, rows))
        for j in range(0, columns, _ROWS):
            blocks = (
                (
                    _as_inputs(a[i : i + _ROWS, k : k + _TERMS], fmt).astype(np.float64),
                    _as_inputs(b[k : k + _TERMS, j : j + _ROWS], fmt).astype(np.float64),
                )
                for k in range(0, terms, _TERMS)
            )
            target = result[i : i + _ROWS, j : j + _ROWS]
            target[...] = work.run(blocks, outputs + j, target.shape[1])
            target[np.isnan(target)] = np.nan  # without a sign, as everywhere


@functools.lru_cache(256)
def _tiles(how: Accumulator, fmt: Format, height: int) -> _Tiles | None:
    """Return the micro-kernels for tiles of so many rows, or None where there are none."""
    is_blocked = how.order == "blocked"
    if not (is_blocked or how.order == "sequential") or not how.fused or not fmt.fits(float32):
        return None
    from lowprec.kernels import matmul as kernels  # imports Numba

    assert isinstance(how.rounding, Rounding)
    assert isinstance(how.overflow, Overflow)
    rounding, overflow = how.rounding, how.overflow
    outer, inner = (kernels.step_plan(f, rounding, overflow) for f in how._formats)
    if outer is None or inner is None or (how.block or 0) > _LONGEST_BLOCK:
        return None
    plans = f"{inner[0]}&{outer[0] if is_blocked else ''}"
    return _Tiles(
        kernels.make_multiply(plans, height),
        kernels.make_pack(),
        kernels.panel_size,
        np.stack([inner[1], outer[1]]),
        how.block or 0,
        fmt,
        # elsewhere NaN must be canonical, which conversion makes it
        takes_float32=fmt == float32 and plans == "nearest&",
    )


class _Tiles(NamedTuple):
    """The micro-kernels for an accumulator, made ready."""

    loop: Callable[..., None]
    pack: Callable[..., None]
    panel_size: Callable[[int, int], int]
    constants: Array
    block: int  # terms of a block, 0 where there are none
    fmt: Format  # of the inputs
    takes_float32: bool  # whether float32 may be read as it lies

    def multiply(self, a: Array, b: Array, result: Array) -> None:
        """Multiply two matrices block by block, through buffers of a fixed size."""
        (rows, columns), terms = result.shape, a.shape[1]
        depth = self.block * max(1, _DEPTH // self.block) if self.block else _DEPTH
        scratch = np.empty((8, 32), np.float32)
        read_a, read_b = self._reader(a), self._reader(b)
        panels = np.empty(self.panel_size(min(depth, terms), min(columns, _WIDTH)), np.float32)
        for k in range(0, terms, depth):
            for j in range(0, columns, _WIDTH):
                self.pack(read_b(slice(k, k + depth), slice(j, j + _WIDTH)), panels)
                for i in range(0, rows, _HEIGHT):
                    block = read_a(slice(i, i + _HEIGHT), slice(k, k + depth))
                    target = result[i : i + _HEIGHT, j : j + _WIDTH]
                    self.loop(
                        block, panels, target, self.block or depth, k == 0, self.constants, scratch
                    )

    def _reader(self, x: Array) -> Callable[[slice, slice], Array]:
        """Return what gives converted blocks of a matrix; a small one is converted at once."""
        if x.size <= _WHOLE:
            whole = self._converted(x)
            return lambda rows, columns: whole[rows, columns]
        return lambda rows, columns: self._converted(x[rows, columns])

    def _converted(self, x: Array) -> Array:
        """Return a matrix as the kernels read it."""
        if x.dtype != np.float32 or not x.flags.forc or not x.flags.aligned:
            return _as_inputs(x, self.fmt)
        if self.takes_float32:
            return x
        y = np.empty_like(x, subok=False)
        source, target = (x, y) if x.flags.c_contiguous else (x.T, y.T)
        round_to(source.reshape(-1), self.fmt, out=target.reshape(-1))
        return y


def _as_inputs(x: Array, fmt: Format) -> Array:
    """Round a block to the inputs' format: float32 where it holds the values, else float64."""
    source = kernel_dtype(x.dtype)
    if source == np.float32 and not fmt.fits(float32):
        x = x.astype(np.float64)
    rounded: Array = round_to(x, fmt)
    return rounded.astype(np.float32, copy=False) if fmt.fits(float32) else rounded


def _rounded_output(result: Array, fmt: Format) -> Array:
    dtype = _result_dtype(fmt)
    rounded: Array = round_to(result.astype(np.result_type(dtype, result.dtype)), fmt)
    return rounded.astype(dtype, copy=False)


# Error bounds ------------------------------------------------------------------------------------


def error_bound(n: int, accumulator: AccumulatorLike = "float32") -> float:
    """Bound the error of a sum or an inner product of n terms, before it is computed.

    Parameters
    ----------
    n : int
        The number of terms.
    accumulator : Accumulator, or Format, str or dtype
        How they are summed.

    Returns
    -------
    float
        A factor of Σ|term|: the sum differs from the exact one by at most this much of it, unless
        a step overflows or falls below the format's smallest normal number. With u the unit
        roundoff (twice that for modes that do not round to nearest) and m roundings between a
        term and the sum, (1 + u)**m - 1: m is n for ``sequential`` and ``blas``, ⌈log2 n⌉ for
        ``pairwise``, 1 for ``exact``; for ``blocked`` as many in `inner` as a block has terms and
        as many in `fmt` as there are blocks. For ``kahan`` 2u + 4n·u².

    Raises
    ------
    ValueError
        If n is negative.

    Examples
    --------
    >>> round(error_bound(100, "float16"), 5)
    0.05003
    >>> round(error_bound(100, Accumulator("float16", order="pairwise")), 5)
    0.00342

    References
    ----------
    Higham (2002), Accuracy and Stability of Numerical Algorithms, sections 3.1, 4.2 and 4.3.
    """
    n = operator.index(n)
    if n < 0:
        raise ValueError(f"n is {n}; a sum has no terms or more")
    how = _as_accumulator(accumulator)
    u, v = (_rounding_error(fmt, how) for fmt in how._formats)
    if n == 0:
        return 0.0
    product = 0.0 if how.fused else math.log1p(v)
    match how.order:
        case "sequential" | "blas":
            exponent = n * math.log1p(u)
        case "blocked":
            assert how.block is not None
            exponent = min(n, how.block) * math.log1p(v) + -(-n // how.block) * math.log1p(u)
        case "pairwise":
            exponent = max(1, (n - 1).bit_length()) * math.log1p(u)
        case "kahan":
            exponent = math.log1p(2 * u + 4 * n * u * u)
        case _:
            exponent = math.log1p(u)
    try:
        return math.expm1(exponent + product)
    except OverflowError:
        return math.inf


def _rounding_error(fmt: Format, how: Accumulator) -> float:
    is_nearest = str(getattr(how.rounding, "value", how.rounding)).startswith("ties")
    return fmt.unit_roundoff if is_nearest else fmt.eps

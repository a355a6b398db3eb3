"""Sums in the format and order of an accumulator, every step rounded once."""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, overload

import numpy as np

from lowprec.accumulation.accumulator import (
    Accumulator,
    AccumulatorLike,
    as_accumulator,
    result_dtype,
)
from lowprec.accumulation.aligned import Aligned
from lowprec.arrays.direct import blocks_of_rows, lies_flat, lies_in_place
from lowprec.arrays.sources import as_array
from lowprec.common.processor_state import in_exact_state
from lowprec.common.randomness import draw_key
from lowprec.formats import Format, Specials, float64, get_format
from lowprec.rounding import Overflow, Rounding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import ArrayLike

    from lowprec.arrays.types import Real
    from lowprec.kernels.sums.loop_choice import RowSums

Array = np.ndarray[Any, Any]

_ELEMENTS = 1 << 16  # of a temporary block of terms
_ONE = Format("one", exponent_bits=2, precision=1, specials=Specials.FINITE)  # factors of 1
_ROWS = 64  # of a block whose rows lie side by side
_NO_KEY = np.uint64(0)
_ROW_SOURCES = ("float32", "float64")  # dtypes that loops over rows read
#: products draw from another stream than sums: from their key, changed by this
PRODUCT_KEY = 0x9E3779B97F4A7C15


class _Reduction(Protocol):
    """What reduces axes: a scalar without an axis, an array where axes are kept."""

    @overload
    def __call__(
        self,
        x: ArrayLike,
        accumulator: AccumulatorLike,
        axis: None = None,
        keepdims: Literal[False] = False,
    ) -> Real: ...
    @overload
    def __call__(
        self,
        x: ArrayLike,
        accumulator: AccumulatorLike,
        axis: int | tuple[int, ...] | None = None,
        *,
        keepdims: Literal[True],
    ) -> np.ndarray[Any, np.dtype[Any]]: ...
    @overload
    def __call__(
        self,
        x: ArrayLike,
        accumulator: AccumulatorLike,
        axis: int | tuple[int, ...],
        keepdims: bool = False,
    ) -> Any: ...


def reduction(function: Callable[..., Any]) -> _Reduction:
    """Return a function as it is, typed as one that reduces axes."""
    return function


@reduction
@in_exact_state
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
        The terms, each taken exactly; integers of at most 53 significant bits, as float64 has.
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
        If an integer has more than 53 significant bits.
    numpy.exceptions.AxisError
        If `x` has no such axis.

    Examples
    --------
    >>> sum([[0.1, 0.2], [0.3, 0.4]], "bfloat16", axis=1)
    array([0.30078125, 0.69921875], dtype=float32)
    """
    if axis is None and not keepdims and type(x) is np.ndarray:
        total = _sum_of_all(x, accumulator)
        if total is not None:
            return total
    how = as_accumulator(accumulator)
    array = as_array(x)
    axes = reduced_axes(array.ndim, axis)
    kept = [d for d in range(array.ndim) if d not in axes]
    shape = [array.shape[d] for d in kept]
    terms = math.prod(array.shape[d] for d in axes)
    if how.order == "blas":
        result = np.asarray(np.add.reduce(array, axis=axes, dtype=np.float32))
    else:
        result = np.zeros(math.prod(shape), result_dtype(how.formats[0]))
        if terms and result.size:
            _sum_rows(array.transpose(kept + list(axes)), terms, how, result)
    result[np.isnan(result)] = np.nan  # whose sign differs between processors
    if keepdims:
        shape = [1 if d in axes else array.shape[d] for d in range(array.ndim)]
    return result.reshape(shape)[()]


def _sum_of_all(x: Array, accumulator: AccumulatorLike) -> Any:
    """Return the sum of an array that a kernel reads as it lies, None where it does not."""
    try:
        own = accumulator if isinstance(accumulator, Accumulator) else None
        kept = _row_kernel(accumulator if own is None else own.unseeded, x.dtype)
    except TypeError:  # the general way says what is wrong
        return None
    if kept is None or not x.size or not lies_flat(x):
        return None
    how, kernel, scalar = kept
    sums = np.zeros(1)
    key = _NO_KEY
    if how.is_stochastic:
        key = np.uint64(draw_key((own or how).rng))
    kernel.add(x.reshape(1, -1), sums, 0, 0, key)
    return scalar(sums[0])


@functools.lru_cache(256)
def _row_kernel(
    accumulator: AccumulatorLike, dtype: np.dtype[Any]
) -> tuple[Accumulator, RowSums, type[Any]] | None:
    """Return what sums a row of a dtype, and the type of the sum; None if nothing does."""
    how = as_accumulator(accumulator)
    if dtype.name not in _ROW_SOURCES or not dtype.isnative or how.order == "blas":
        return None
    kernel = how.row_sums(dtype.name)
    return None if kernel is None else (how, kernel, result_dtype(how.formats[0]).type)


def reduced_axes(ndim: int, axis: int | tuple[int, ...] | None) -> tuple[int, ...]:
    """Return the axes that are summed over, from 0 on and in order."""
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
    if how.order == "aligned" or how.is_nested:
        (_sum_rows_nested if how.is_nested else _sum_rows_aligned)(x, terms, how, result)
        return
    matrix = _as_matrix(x, result.size, terms)
    key = np.uint64(draw_key(how.rng) if how.is_stochastic else 0)
    if matrix is None or not _sum_as_it_lies(matrix, how, result, key):
        _sum_blocks(x if matrix is None else matrix, terms, how, result, key)


def _as_matrix(x: Array, rows: int, terms: int) -> Array | None:
    """Return an array as a matrix of `rows` rows, or None where that would take a copy."""
    if x.flags.c_contiguous:
        return x.reshape(rows, terms)
    places, strides = [rows, terms], []
    sizes = [(n, step) for n, step in zip(x.shape, x.strides, strict=True) if n > 1]
    for wanted in places:
        count, stride = 1, 0
        while count < wanted and sizes:
            n, step = sizes.pop(0)
            if count > 1 and stride != n * step:
                return None
            count, stride = count * n, step
        strides.append(stride)
    return np.lib.stride_tricks.as_strided(x, (rows, terms), strides, writeable=False)


def _sum_as_it_lies(matrix: Array, how: Accumulator, result: Array, key: Any) -> bool:
    """Sum the rows of a matrix that a kernel reads where it is; return whether one does."""
    if not lies_in_place(matrix):
        return False
    rows = len(matrix)
    if lies_flat(matrix) and matrix.dtype.name in _ROW_SOURCES:
        kernel = how.row_sums(matrix.dtype.name)
        if kernel is None:
            return False
        for start in range(0, rows, _ELEMENTS):
            sums = np.zeros(min(_ELEMENTS, rows - start))
            kernel.add(matrix[start : start + _ELEMENTS], sums, 0, start, key)
            result[start : start + _ELEMENTS] = sums
        return True
    from lowprec.kernels.sums.loop_choice import FEWEST_COLUMNS  # imports Numba

    is_side_by_side = matrix.strides[0] == matrix.itemsize and rows >= FEWEST_COLUMNS
    if matrix.dtype != np.float32 or not is_side_by_side:
        return False
    columns = how.column_sums()
    if columns is None:
        return False
    columns.add(matrix.T, result)
    return True


def _sum_blocks(x: Array, terms: int, how: Accumulator, result: Array, key: Any) -> None:
    """Sum rows block by block, each made float64 of its own."""
    kernel = how.row_sums("float64")
    work = None
    if kernel is None or not kernel.takes_parts:
        work = RunningSums.of(how, terms, key=key)
    rows = max(1, _ELEMENTS // terms)
    if x.ndim == 2 and abs(x.strides[0]) < abs(x.strides[1]):  # whole cache lines of many rows
        rows = min(max(rows, _ROWS), result.size)
    for part, parts in blocks_of_rows(x, terms, rows, max(1, _ELEMENTS // rows)):
        count, blocks = part.stop - part.start, map(exactly, parts)
        if work is not None:
            pairs = ((np.ones((1, block.shape[1])), block.T) for block in blocks)
            result[part] = work.run(pairs, np.array([part.start]), count)[0]
            continue
        assert kernel is not None
        sums, first = np.zeros(count), 0
        for block in blocks:
            kernel.add(block, sums, first, part.start, key)
            first += block.shape[1]
        result[part] = sums


def _sum_rows_aligned(x: Array, terms: int, how: Accumulator, result: Array) -> None:
    """Sum as products with 1, whose other factors have the exponents of the array's format."""
    assert how.block is not None
    own = get_format(x.dtype) if x.dtype.kind == "f" or x.dtype.kind == "V" else float64
    work = Aligned.of(how, (_ONE, own))
    step = max(1, _ELEMENTS // how.block) * how.block  # whole groups
    for part, blocks in blocks_of_rows(x, terms, max(1, _ELEMENTS // min(terms, step)), step):
        sums: Array | None = None
        for block in map(exactly, blocks):
            sums, before = np.empty((1, len(block))), sums
            ones = np.ones((1, block.shape[1]))
            work.multiply(ones, block.T, before, sums, lambda part, _: part)
        result[part] = np.asarray(sums)[0]


def _sum_rows_nested(x: Array, terms: int, how: Accumulator, result: Array) -> None:
    """Sum each block by the inner accumulator, and the blocks' sums in order."""
    assert how.block is not None
    key, outer = outer_sums(how)
    for part, blocks in blocks_of_rows(x, terms, 1, how.block):  # a row at a time
        row = part.start

        def sums(row: int = row, blocks: Iterator[Array] = blocks) -> Iterator[tuple[Array, Array]]:
            for number, block in enumerate(blocks):
                sum_ = np.zeros(1, result_dtype(how.formats[1]))
                _sum_rows(block, block.size, inner_at(how, key, number, row), sum_)
                yield np.ones((1, 1)), sum_.astype(np.float64)[np.newaxis]

        running = RunningSums.of(outer, -(-terms // how.block))
        result[part] = running.run(sums(), np.array([row]), 1)[0]


def outer_sums(how: Accumulator) -> tuple[int, Accumulator]:
    """Return a key for the blocks of a nested accumulator, and how their sums are added."""
    inner = how.inner
    assert isinstance(inner, Accumulator)
    is_random = isinstance(inner.rounding, Rounding) and inner.rounding.is_stochastic
    outer = Accumulator(
        how.fmt,
        rounding=how.rounding,
        overflow=how.overflow,
        rng=how.rng,
        random_bits=how.random_bits,
    )
    return draw_key(inner.rng) if is_random else 0, outer


def inner_at(how: Accumulator, key: int, *place: int) -> Accumulator:
    """Return the accumulator of a block; a stochastic one has random bits of its own there."""
    inner = how.inner
    assert isinstance(inner, Accumulator)
    assert isinstance(inner.rounding, Rounding)
    if not inner.rounding.is_stochastic:
        return inner
    return dataclasses.replace(inner, rng=np.random.SeedSequence([key, *place]))


@np.errstate(invalid="ignore")  # a NaN that signals is widened
def exactly(x: Array) -> Array:
    """Return numbers as float64, which must hold them."""
    numbers = x.astype(np.float64, order="C")
    if x.dtype.kind in "iu" and x.dtype.itemsize == 8 and np.abs(numbers).max(initial=0) >= 2**53:
        bits = x.astype(np.uint64)
        lowest = (bits & -bits).astype(np.float64)  # of a negative number too
        is_rounded = (bits != 0) & (np.abs(numbers) >= lowest * 2.0**53)
        if is_rounded.any():
            raise ValueError(
                f"the term {x.flat[is_rounded.argmax()]} needs more than float64's 53 bits; "
                "pass x.astype('float64') to have it rounded first"
            )
    return numbers


class RunningSums(NamedTuple):
    """An accumulator made ready: the general kernel with its constants and one key."""

    how: Accumulator
    terms: int
    state_size: int
    constants: Array
    accumulate: Callable[..., None]
    multiply: Callable[..., None] | None
    key: np.uint64

    @classmethod
    def of(
        cls, how: Accumulator, terms: int, products: bool = False, key: Any = None
    ) -> RunningSums:
        """Prepare for sums of `terms` terms, or of products; a stochastic mode draws its key."""
        from lowprec.kernels.sums import orders as kernels  # imports Numba

        assert isinstance(how.rounding, Rounding)
        assert isinstance(how.overflow, Overflow)
        rounding, overflow = how.rounding, how.overflow
        how_rounded = rounding, overflow, how.random_bits
        plans = [kernels.rounding_plan(fmt, *how_rounded) for fmt in how.formats]
        return cls(
            how,
            terms,
            kernels.state_size(how.order, terms),
            np.stack([constants for _, constants in plans]),
            kernels.make_accumulation(how.order, plans[0][0], plans[1][0]),
            kernels.make_products(plans[1][0]) if products and not how.fused else None,
            np.uint64(draw_key(how.rng) if how.is_stochastic else 0) if key is None else key,
        )

    def run(
        self,
        blocks: Iterable[tuple[Array, Array]],
        outputs: Array,
        columns: int,
        c: Array | None = None,
    ) -> Array:
        """Return the sums of terms ``a[i, k] * b[k, j]`` that come in blocks along k.

        `outputs` holds the index of each row's first output in the whole result; `c`, where there
        is one, the first term of each output, which `terms` counts.
        """
        state = np.zeros((len(outputs), columns, self.state_size))
        first = 0
        if c is not None:
            one = np.ones((1, 1))
            for i in range(len(outputs)):
                row = slice(i, i + 1)
                self._accumulate(one, c[row], state[row], 0, self.terms == 1, outputs[row])
            first = 1
        for a, b in blocks:
            last = first + len(b) == self.terms
            if self.multiply is None:
                self._accumulate(a, b, state, first, last, outputs)
            else:
                products, one = np.empty(b.shape), np.ones((1, len(b)))
                key = self.key ^ np.uint64(PRODUCT_KEY)
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

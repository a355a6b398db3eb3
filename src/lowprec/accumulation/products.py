"""Matrix products: elements rounded to a format, products summed by an accumulator."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowprec.accumulation.accumulator import (
    Accumulator,
    AccumulatorLike,
    as_accumulator,
    result_dtype,
)
from lowprec.accumulation.sums import RunningSums
from lowprec.accumulation.tiled_products import Tiles, as_inputs
from lowprec.arrays.sources import as_array
from lowprec.conversion.door import round_to
from lowprec.conversion.requests import refuse_specials, without_code
from lowprec.formats import Format, FormatLike, float64, get_format

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike

__all__ = ["dot", "matmul"]

Array = np.ndarray[Any, Any]

_ROWS, _TERMS = 64, 256  # blocks of the general kernel


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
    how = _planned(inputs, accumulator, output)
    if how.direct is not None and type(a) is type(b) is np.ndarray:
        product = how.direct(a, b)
        if product is not None:
            return product
    left, right, shape, squeezed = _matched(as_array(a), as_array(b))
    for operand in (left, right):
        refuse_specials(operand, how.refuses)
    result = np.empty(shape, how.dtype) if left.shape[-1] else np.zeros(shape, how.dtype)
    if result.size and left.shape[-1]:
        how.multiply(left, right, result)
    if how.output is not None:
        result = _rounded_output(result, how.output)
    if squeezed:
        result = result.reshape([n for d, n in enumerate(shape, -len(shape)) if d not in squeezed])
        return result[()]
    return result


def _matched(a: Array, b: Array) -> tuple[Array, Array, tuple[int, ...], tuple[int, ...]]:
    """Return operands of at least two dimensions that broadcast, the shape of their product,
    and which of its dimensions are not the caller's."""  # noqa: D205, D209
    if a.ndim == b.ndim == 2 and a.shape[1] == b.shape[0]:
        return a, b, (a.shape[0], b.shape[1]), ()
    if a.ndim == 0 or b.ndim == 0:
        raise ValueError("matmul takes vectors and matrices, not scalars; use * and round_to")
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


# Plans -------------------------------------------------------------------------------------------


class _Plan(NamedTuple):
    """What a product's keywords ask for, checked."""

    how: Accumulator
    fmt: Format  # of the inputs
    output: Format | None
    dtype: np.dtype[Any]
    refuses: str  # what has no code in the inputs' format
    tiles: Tiles | None  # where there are micro-kernels
    direct: Callable[[Array, Array], Array | None] | None  # theirs, where it gives the result

    def multiply(self, a: Array, b: Array, result: Array) -> None:
        """Multiply matrices, or stacks of them."""
        stack, fmt = result.shape[:-2], self.fmt
        if self.tiles is not None and not stack:
            self.tiles.multiply(a, b, result)
        elif self.tiles is not None:
            for index in np.ndindex(stack):
                self.tiles.multiply(a[index], b[index], result[index])
        elif self.how.order == "blas":
            for index in np.ndindex(stack):
                np.matmul(as_inputs(a[index], fmt), as_inputs(b[index], fmt), out=result[index])
        else:
            sums = RunningSums.of(self.how, a.shape[-1], products=True)
            size = result.shape[-2] * result.shape[-1]
            for number, index in enumerate(np.ndindex(stack)):
                multiply_generally(a[index], b[index], result[index], fmt, sums, number * size)


def _planned(inputs: FormatLike, accumulator: AccumulatorLike, output: FormatLike | None) -> _Plan:
    """Return the plan that is kept for these arguments; say what is wrong with a list, say."""
    try:
        return _plan(inputs, accumulator, output)
    except TypeError:
        for fmt in (inputs, "float32" if output is None else output):
            get_format(fmt)
        as_accumulator(accumulator)
        raise


@functools.lru_cache(256)
def _plan(inputs: FormatLike, accumulator: AccumulatorLike, output: FormatLike | None) -> _Plan:
    how, fmt = as_accumulator(accumulator), get_format(inputs)
    _check_products(fmt, how)
    tiles = Tiles.of(how, fmt)
    return _Plan(
        how,
        fmt,
        None if output is None else get_format(output),
        result_dtype(how.formats[0]),
        without_code(fmt),
        tiles,
        tiles.direct if tiles is not None and tiles.reads_float32 and output is None else None,
    )


def _check_products(fmt: Format, how: Accumulator) -> None:
    lowest = fmt.emin - (fmt.trailing_bits if fmt.subnormals else 0)
    if 2 * fmt.precision <= 53 and fmt.emax < 512 and lowest >= -537:
        return
    is_native = all(f == float64 for f in how.formats)
    if is_native and (not how.fused or how.order in ("sequential", "blocked", "kahan")):
        return
    raise ValueError(
        f"float64 does not hold every product of {str(fmt)!r}; use inputs='float32' or narrower, "
        "or accumulator='float64' with order 'sequential', 'blocked' or 'kahan', or fused=False"
    )


# The general kernel ------------------------------------------------------------------------------


def multiply_generally(
    a: Array, b: Array, result: Array, fmt: Format, sums: RunningSums, first: int
) -> None:
    """Multiply two matrices block by block; output (0, 0) has the index `first`."""
    (rows, columns), terms = result.shape, a.shape[1]
    for i in range(0, rows, _ROWS):
        outputs = first + columns * np.arange(i, min(i + _ROWS, rows))
        for j in range(0, columns, _ROWS):
            blocks = (
                (
                    as_inputs(a[i : i + _ROWS, k : k + _TERMS], fmt).astype(np.float64),
                    as_inputs(b[k : k + _TERMS, j : j + _ROWS], fmt).astype(np.float64),
                )
                for k in range(0, terms, _TERMS)
            )
            target = result[i : i + _ROWS, j : j + _ROWS]
            target[...] = sums.run(blocks, outputs + j, target.shape[1])
            target[np.isnan(target)] = np.nan  # without a sign, as everywhere


def _rounded_output(result: Array, fmt: Format) -> Array:
    dtype = result_dtype(fmt)
    rounded: Array = round_to(result.astype(np.result_type(dtype, result.dtype)), fmt)
    return rounded.astype(dtype, copy=False)

"""Matrix products: elements rounded to a format, products summed by an accumulator."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowprec.accumulation.accumulator import (
    Accumulator,
    AccumulatorLike,
    as_accumulator,
    result_dtype,
)
from lowprec.accumulation.aligned import Aligned
from lowprec.accumulation.sums import PRODUCT_KEY, RunningSums, exactly, inner_at, outer_sums
from lowprec.accumulation.tiled_products import Tiles, as_inputs
from lowprec.arrays.sources import as_array
from lowprec.blocks.formats import AnyFormat, AnyFormatLike, BlockFormat
from lowprec.blocks.formats import get_format as find_format
from lowprec.blocks.quantizing import quantize
from lowprec.common.processor_state import in_exact_state
from lowprec.common.randomness import draw_key
from lowprec.conversion.door import round_to
from lowprec.conversion.requests import refuse_specials, without_code
from lowprec.formats import (
    Format,
    FormatLike,
    bfloat16,
    family_format,
    float64,
    get_format,
)
from lowprec.rounding import Overflow, Rounding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import ArrayLike

    from lowprec.arrays.direct import NoCode

Array = np.ndarray[Any, Any]
Inputs = AnyFormatLike | tuple[AnyFormatLike, AnyFormatLike]
_Plain = FormatLike | tuple[FormatLike, FormatLike]

_ROWS, _TERMS = 64, 256  # blocks of the general kernel


def dot(
    a: ArrayLike,
    b: ArrayLike,
    *,
    c: ArrayLike | None = None,
    inputs: Inputs | None = None,
    accumulator: AccumulatorLike = "float32",
    output: FormatLike | None = None,
) -> Any:
    """Return the inner product of two vectors (of matrices: their product), as `matmul` does.

    Parameters
    ----------
    a, b : array_like of real numbers, one- or two-dimensional
        The factors.
    c, inputs, accumulator, output
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
    if not (type(a) is type(b) is np.ndarray and a.ndim == b.ndim == 1):
        a, b = as_array(a), as_array(b)
    if a.ndim > 2 or b.ndim > 2:
        raise ValueError(
            f"dot takes vectors and matrices, not shapes {a.shape} and {b.shape}; "
            "use matmul for stacks of matrices"
        )
    return matmul(a, b, c=c, inputs=inputs, accumulator=accumulator, output=output)


def matmul(
    a: ArrayLike,
    b: ArrayLike,
    *,
    c: ArrayLike | None = None,
    inputs: Inputs | None = None,
    accumulator: AccumulatorLike = "float32",
    output: FormatLike | None = None,
) -> Any:
    """Multiply matrices: elements rounded to `inputs`, products summed by `accumulator`.

    Parameters
    ----------
    a, b : array_like of real numbers
        Matrices, stacks of them that broadcast, or vectors, as for `numpy.matmul`, with any
        strides: a transposed matrix is as good as another.
    c : array_like of real numbers, optional
        What is added, of the product's shape or one that broadcasts to it. Sequential, blocked and
        Kahan's sums begin with it, rounded; it is the first leaf of a pairwise sum and one more
        term of an exact one. An aligned sum takes it as float32, or rounded to float16 where the
        sum is of float16.
    inputs : Format, str or dtype, or two of them
        What elements of `a` and of `b` are rounded to first, to nearest with ties to even; by
        default bfloat16, or what the accumulator is for. In block formats an operand is
        quantized along the axis that is summed, tiles in the last two axes; what is multiplied are
        the float32 numbers that it then stands for.
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
    fmt: Any = inputs
    if _has_blocks(fmt):
        a, b, fmt = _quantized(a, b, fmt)
    how = _planned(fmt, accumulator, output)
    if how.direct is not None and c is None and type(a) is type(b) is np.ndarray:
        product = how.direct(a, b)
        if product is not None:
            return product
    return _multiplied(how, as_array(a), as_array(b), c)


@in_exact_state
def _multiplied(how: _Plan, a: Array, b: Array, c: ArrayLike | None) -> Any:
    left, right, shape, squeezed = _matched(a, b)
    for operand, refused in zip((left, right), how.refuses, strict=True):
        refuse_specials(operand, refused)
    addend = None if c is None else how.addend(c, shape, squeezed)
    result = np.empty(shape, how.dtype) if left.shape[-1] else np.zeros(shape, how.dtype)
    if result.size and left.shape[-1]:
        how.multiply(left, right, result, addend)
    elif result.size and addend is not None:
        result[...] = how.begun(addend)
    if how.output is not None:
        result = _rounded_output(result, how.output)
    if squeezed:
        result = result.reshape([n for d, n in enumerate(shape, -len(shape)) if d not in squeezed])
        return result[()]
    return result


def _has_blocks(inputs: Any) -> bool:
    """Whether a format, or one of a pair, is of blocks."""
    try:
        return _is_of_blocks(inputs)
    except TypeError:  # cannot be hashed; the plan says what is wrong with it
        return isinstance(inputs, list) and _has_blocks(tuple(inputs))


@functools.lru_cache(256)
def _is_of_blocks(inputs: Any) -> bool:
    pair = inputs if isinstance(inputs, tuple) else (inputs,)
    return any(family_format(fmt) is not None for fmt in pair)


def _quantized(a: Any, b: Any, inputs: Any) -> tuple[Array, Array, FormatLike]:
    """Return operands rounded each to a format of its own, and one that holds both as they are."""
    pair = inputs if isinstance(inputs, tuple | list) else (inputs, inputs)
    if len(pair) != 2:
        raise ValueError(f"inputs is {inputs!r}; pass one format, or one for a and one for b")
    formats = [find_format(fmt) for fmt in pair]
    left, right = as_array(a), as_array(b)
    if left.ndim and right.ndim:
        axes = (-1, -2 if right.ndim > 1 else -1)
        left, right = (
            _rounded(operand, fmt, axis)
            for operand, fmt, axis in zip((left, right), formats, axes, strict=True)
        )
    is_single = left.dtype == right.dtype == np.float32
    return left, right, "float32" if is_single else "float64"


def _rounded(operand: Array, fmt: AnyFormat, axis: int) -> Array:
    if isinstance(fmt, BlockFormat):
        return quantize(operand, fmt, axis=-1 if fmt.is_tiled else axis).dequantize("float32")
    return as_inputs(operand, fmt)


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
    if not stack:
        return left, right, shape, squeezed
    left = np.broadcast_to(left, stack + left.shape[-2:])
    return left, np.broadcast_to(right, stack + right.shape[-2:]), shape, squeezed


# Plans -------------------------------------------------------------------------------------------


class _Plan(NamedTuple):
    """What a product's keywords ask for, checked."""

    how: Accumulator
    inputs: tuple[Format, Format]
    output: Format | None
    dtype: np.dtype[Any]
    refuses: tuple[NoCode | None, NoCode | None]  # by the inputs' formats
    tiles: Tiles | None  # where there are micro-kernels
    direct: Callable[[Array, Array], Any] | None  # theirs for arrays as they lie, where it suits

    def multiply(self, a: Array, b: Array, result: Array, c: Array | None = None) -> None:
        """Multiply matrices, or stacks of them; sums begin with c where there is one."""
        stack = result.shape[:-2]
        if self.tiles is not None and not self.tiles.draws and not stack:
            self.tiles.multiply(a, b, result, None if c is None else self.begun(c))
            return
        compute = self._matrices(a.shape[-1], c is not None)
        size = result.shape[-2] * result.shape[-1]
        for number, index in enumerate(np.ndindex(stack)):
            addend = None if c is None else c[index]
            compute(a[index], b[index], result[index], addend, number * size)

    def _matrices(self, terms: int, has_addend: bool) -> Callable[..., None]:
        """Return what multiplies two matrices into a third, whose first output has an index."""
        (first, second), how = self.inputs, self.how
        if self.tiles is not None and self.tiles.draws:
            if not has_addend:
                key = draw_key(how.rng)
                keys = np.array([key, key ^ PRODUCT_KEY], np.uint64)
                multiply = self.tiles.multiply_at_random
                return lambda a, b, result, c, first: multiply(a, b, result, keys, first)
        elif self.tiles is not None:
            tiles, begun = self.tiles, self.begun
            return lambda a, b, result, c, _: tiles.multiply(
                a, b, result, None if c is None else begun(c)
            )
        if how.order == "blas":
            return lambda a, b, result, c, _: np.matmul(
                as_inputs(a, first), as_inputs(b, second), out=result
            )
        if how.order == "aligned":
            return functools.partial(_multiply_aligned, Aligned.of(how, self.inputs))
        if how.is_nested or (has_addend and how.order == "blocked"):
            return functools.partial(_multiply_nested, self.inputs, _nested(how))
        sums = RunningSums.of(how, terms + has_addend, products=True)
        return functools.partial(multiply_generally, self.inputs, sums)

    def addend(self, c: ArrayLike, shape: tuple[int, ...], squeezed: tuple[int, ...]) -> Array:
        """Return c in the shape of the product of matrices."""
        if self.how.order == "blas":
            raise ValueError(
                "order='blas' is NumPy's own product, which begins with nothing; add c afterwards, "
                "or use order='sequential'"
            )
        array = as_array(c)
        own = tuple(n for d, n in enumerate(shape, -len(shape)) if d not in squeezed)
        try:
            array = np.broadcast_to(array, own)
        except ValueError:
            raise ValueError(
                f"c has shape {array.shape}, which does not broadcast to the product's {own}"
            ) from None
        refuse_specials(array, without_code(self.how.formats[0]))
        return array.reshape(shape)

    def begun(self, c: Array) -> Array:
        """Return sums that have only begun: c rounded as the accumulator rounds."""
        how = self.how
        assert isinstance(how.rounding, Rounding)
        assert isinstance(how.overflow, Overflow)
        source = c if c.dtype == self.dtype else c.astype(np.result_type(c.dtype, self.dtype))
        begun: Array = round_to(
            source, how.formats[0], rounding=how.rounding, overflow=how.overflow, rng=how.rng
        )
        return begun.astype(self.dtype, copy=False)


def _planned(
    inputs: _Plain | None, accumulator: AccumulatorLike, output: FormatLike | None
) -> _Plan:
    """Return the plan that is kept for these arguments; say what is wrong with a list, say."""
    try:
        if isinstance(accumulator, Accumulator) and accumulator.unseeded is not accumulator:
            return _plan(inputs, accumulator.unseeded, output)._replace(how=accumulator)
        return _plan(inputs, accumulator, output)
    except TypeError:
        for fmt in (*(inputs if isinstance(inputs, tuple) else (inputs,)), output):
            if fmt is not None:
                get_format(fmt)
        as_accumulator(accumulator)
        raise


@functools.lru_cache(256)
@in_exact_state
def _plan(inputs: _Plain | None, accumulator: AccumulatorLike, output: FormatLike | None) -> _Plan:
    how = as_accumulator(accumulator)
    pair = _checked_inputs(inputs, how)
    _check_products(pair, how)
    tiles = Tiles.of(how, pair[0]) if pair[0] == pair[1] else None
    return _Plan(
        how,
        pair,
        None if output is None else get_format(output),
        result_dtype(how.formats[0]),
        (without_code(pair[0]), without_code(pair[1])),
        tiles,
        tiles.direct if tiles is not None and not tiles.draws and output is None else None,
    )


def _checked_inputs(inputs: _Plain | None, how: Accumulator) -> tuple[Format, Format]:
    """Return the formats of both factors; those of the accumulator where none are asked for."""
    wanted = how.inputs if isinstance(how.inputs, tuple) else None
    if inputs is None:
        return wanted or (bfloat16, bfloat16)  # type: ignore[return-value]
    pair = inputs if isinstance(inputs, tuple) else (inputs, inputs)
    if len(pair) != 2:
        raise ValueError(f"inputs has {len(pair)} formats; a product has two factors")
    found = get_format(pair[0]), get_format(pair[1])
    if wanted is not None and found != wanted:
        names = " and ".join(dict.fromkeys(map(str, wanted)))
        raise ValueError(
            f"this accumulator takes products of {names}, not of "
            f"{' and '.join(dict.fromkeys(map(str, found)))}; leave inputs out, or ask "
            "tensor_core for these inputs"
        )
    return found


def _check_products(pair: tuple[Format, Format], how: Accumulator) -> None:
    lowest = sum(fmt.emin - (fmt.trailing_bits if fmt.subnormals else 0) for fmt in pair)
    highest = sum(fmt.emax for fmt in pair)
    if sum(fmt.precision for fmt in pair) <= 53 and highest < 1023 and lowest >= -1074:
        return
    is_native = all(f == float64 for f in how.formats) and not how.is_nested
    if is_native and (not how.fused or how.order in ("sequential", "blocked", "kahan")):
        return
    names = " and ".join(repr(str(fmt)) for fmt in dict.fromkeys(pair))
    raise ValueError(
        f"float64 does not hold every product of {names}; use inputs='float32' or narrower, "
        "or accumulator='float64' with order 'sequential', 'blocked' or 'kahan', or fused=False"
    )


def _multiply_aligned(
    aligned: Aligned,
    a: Array,
    b: Array,
    result: Array,
    c: Array | None,
    first: int,
) -> None:
    start = None if c is None else aligned.addend(c)
    aligned.multiply(a, b, start, result, as_inputs)


def _nested(how: Accumulator) -> Accumulator:
    """Return a blocked accumulator with one that sums its blocks."""
    if how.is_nested:
        return how
    inner = Accumulator(
        how.formats[1],
        fused=how.fused,
        rounding=how.rounding,
        overflow=how.overflow,
        rng=how.rng,
        random_bits=how.random_bits,
    )
    return dataclasses.replace(how, inner=inner, fused=True)


def _multiply_nested(
    inputs: tuple[Format, Format],
    how: Accumulator,
    a: Array,
    b: Array,
    result: Array,
    c: Array | None,
    first: int,
) -> None:
    """Multiply block by block with the inner accumulator, and add the blocks' products in order."""
    assert how.block is not None
    terms, (key, outer) = a.shape[1], outer_sums(how)

    def products() -> Iterator[tuple[Array, Array]]:
        one = np.ones((1, 1))
        if c is not None:
            yield one, exactly(c).reshape(1, -1)
        for number, k in enumerate(range(0, terms, how.block or 1)):
            rows = slice(k, k + (how.block or 1))
            part = np.empty(result.shape, result_dtype(how.formats[1]))
            inner = _plan(inputs, inner_at(how, key, number, first), None)
            inner.multiply(a[:, rows], b[rows], part)
            yield one, exactly(part).reshape(1, -1)

    sums = RunningSums.of(outer, -(-terms // how.block) + (c is not None))
    totals = sums.run(products(), np.array([first]), result.size)
    result[...] = totals.reshape(result.shape)


# The general kernel ------------------------------------------------------------------------------


def multiply_generally(
    inputs: tuple[Format, Format],
    sums: RunningSums,
    a: Array,
    b: Array,
    result: Array,
    c: Array | None,
    first: int,
) -> None:
    """Multiply two matrices block by block; output (0, 0) has the index `first`."""
    (rows, columns), terms = result.shape, a.shape[1]
    for i in range(0, rows, _ROWS):
        outputs = first + columns * np.arange(i, min(i + _ROWS, rows))
        for j in range(0, columns, _ROWS):
            blocks = (
                (
                    as_inputs(a[i : i + _ROWS, k : k + _TERMS], inputs[0]).astype(np.float64),
                    as_inputs(b[k : k + _TERMS, j : j + _ROWS], inputs[1]).astype(np.float64),
                )
                for k in range(0, terms, _TERMS)
            )
            target = result[i : i + _ROWS, j : j + _ROWS]
            start = None if c is None else exactly(c[i : i + _ROWS, j : j + _ROWS])
            target[...] = sums.run(blocks, outputs + j, target.shape[1], start)
            target[np.isnan(target)] = np.nan  # without a sign, as everywhere


def _rounded_output(result: Array, fmt: Format) -> Array:
    dtype = result_dtype(fmt)
    rounded: Array = round_to(result.astype(np.result_type(dtype, result.dtype)), fmt)
    return rounded.astype(dtype, copy=False)

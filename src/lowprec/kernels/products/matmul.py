"""Matrix products on vectors: loops over blocks of k, panels of columns, and tiles.

The right operand is copied to panels that stay in the nearest cache while tiles pass over them,
unless so few rows use it that it is read where it lies, as the left one always is.

References
----------
Goto, van de Geijn (2008), "Anatomy of high-performance matrix multiplication".
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.formats import Format, float16
from lowprec.kernels.compiler import types
from lowprec.kernels.loops import (
    EXACT_FLOATS,
    compile_as,
    load_constants,
    spell,
    swap_float_state,
)
from lowprec.kernels.magnitudes import Constants
from lowprec.kernels.plans import processor_has
from lowprec.kernels.products.double_rounding import (
    Quick,
    bfloat16_shifts,
    extremes,
    narrow_shifts,
    quick_steps,
    wide_shifts,
)
from lowprec.kernels.products.packing import pack
from lowprec.kernels.products.steps import (
    HALF,
    SINGLE,
    ProductPlan,
    any_step_plan,
    operands,
    step_plan,
)
from lowprec.kernels.products.tiles import tile
from lowprec.kernels.products.vectors import element_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from lowprec.rounding import Overflow, Rounding

    Array = np.ndarray[Any, Any]

FLOAT32 = ProductPlan(SINGLE)  #: where the processor makes every step itself

DEPTH = 128  #: terms of a panel
_HEIGHT = 1024  # rows of the left operand that one panel after the other uses
_FEW_ROWS = 32  # for which the right operand is read where it lies
_HEIGHTS = spell((8, 4, 1) if processor_has("avx512f") else (4, 1))  # of tiles
NO_CONSTANTS = np.zeros((2, len(Constants._fields)), np.uint64)


def float32_product(a: Array, b: Array, out: Array | None = None) -> Array:
    """Multiply two matrices of float32, each sum formed in the order of k, every step rounded once.

    What ``matmul(a, b, inputs="float32", accumulator="float32")`` does, for calls that are many and
    small: the same bits, by one thread.

    Parameters
    ----------
    a, b : numpy.ndarray of float32, two-dimensional
        The factors, with any strides.
    out : numpy.ndarray of float32, optional
        Where to write: an array of the product's shape with contiguous rows, apart from `a` and
        `b`.

    Returns
    -------
    numpy.ndarray of float32
        The product: `out`, if that was given.

    Raises
    ------
    ValueError
        If an operand has not two dimensions, or shapes do not match.
    TypeError
        If an array has another dtype, or `out` is read-only.

    Examples
    --------
    >>> x = np.ones((2, 3), np.float32)
    >>> float32_product(x, x.T).tolist()
    [[3.0, 3.0], [3.0, 3.0]]
    """
    (rows, terms), (depth, columns) = a.shape, b.shape
    if terms != depth:
        raise ValueError(f"shapes {a.shape} and {b.shape} do not match; transpose one of them")
    if out is None:
        out = np.empty((rows, columns), np.float32)
    elif out.shape != (rows, columns) or (out.strides[1] != out.itemsize and columns > 1):
        raise ValueError(
            f"out has shape {out.shape} and strides {out.strides}; the product has shape "
            f"{(rows, columns)}, and its rows must be contiguous"
        )
    _float32_multiply()(a, b, out, True, DEPTH, NO_CONSTANTS)
    return out


@functools.cache
def _float32_multiply() -> Callable[..., None]:
    return make_multiply(FLOAT32)


def product_plans(
    inputs: Format,
    inner: Format,
    outer: Format | None,
    rounding: Rounding,
    overflow: Overflow,
    fused: bool,
) -> tuple[ProductPlan, Array] | None:
    """Return how elements of a format are multiplied and summed, and its constants.

    `outer` is the format that the sums of blocks are added in, None
    where there are no blocks. None where these kernels cannot.
    """
    first = any_step_plan(inner, rounding, overflow)
    last = any_step_plan(outer or inner, rounding, overflow)
    if first is None or last is None:
        return None
    plan, end = first[0], "" if outer is None else last[0]
    quick = None
    if outer is None and fused and step_plan(inner, rounding, overflow) is not None:
        quick = quick_steps(inputs, inner, rounding, overflow)
    if outer is None and plan == "float16" and inputs.fits(float16) and processor_has("avx512fp16"):
        plan = HALF
    given = operands(inputs, inner, rounding, overflow, fused)
    return ProductPlan(plan, end, given, quick), np.stack([first[1], last[1]])


def is_of_halves(plan: ProductPlan) -> bool:
    """Whether operands and sums are codes of float16."""
    return plan.inner == HALF


@functools.cache
def make_multiply(plan: ProductPlan) -> Callable[..., None]:
    """Return the loop that adds ``a @ b`` to `c`, as a plan says.

    ``multiply(a, b, c, is_first, block, constants)``: `block` is the number of terms of a block, or
    `DEPTH`; before the first terms, `c` may hold anything. Rows of `c` are contiguous. Arrays are
    of float32, or of float16's codes if steps are those of float16.
    """
    inner, plans = plan.inner, plan.spell()
    element = element_of(inner == HALF)
    is_quick, is_bfloat16 = plan.quick is not None, plan.quick is Quick.BFLOAT16
    is_wide, is_bounded = plan.quick is Quick.WIDE, plan.quick is Quick.BOUNDED
    lanes, size, bits = element.lanes, element.bytes, 8 * element.bytes
    widths = 3 if inner == SINGLE else 2  # vectors of a tile: as many as registers hold

    widest = 2 * widths

    def multiply(a, b, c, is_first, block, constants):  # type: ignore[no-untyped-def]
        floats = swap_float_state(EXACT_FLOATS)
        fields = (load_constants(constants[0]), load_constants(constants[1]))
        (rows, terms), columns = a.shape, c.shape[1]
        at_a, at_b = np.int64(a.ctypes.data), np.int64(b.ctypes.data)
        at_c, down_c = np.int64(c.ctypes.data), c.strides[0]
        (down_a, along_a), (down_b, along_b) = a.strides, b.strides
        if columns == 1 and down_c == size:  # a column is the product of transposes, as a row
            at_a, at_b = at_b, at_a
            down_a, along_a, down_b, along_b = along_b, down_b, along_a, down_a
            rows, columns = 1, rows
        shifts = 0, 0, 0
        if is_quick:
            of_a = extremes(at_a, (down_a, along_a), (rows, terms))
            of_b = extremes(at_b, (down_b, along_b), (terms, columns))
            if is_bfloat16:
                shifts = bfloat16_shifts(of_a, of_b)
            elif is_wide:
                shifts = wide_shifts(of_a, of_b)
            else:
                t, emin, threshold = fields[0][0], fields[0][1], fields[0][9]
                exponents = np.int64(t), np.int64(emin), np.int64(threshold)
                shifts = narrow_shifts(of_a[0], of_b[0], *exponents, is_bounded)
        depth = block * max(1, DEPTH // block)
        most = widths if rows > 1 else widest
        is_in_place = along_b == size and rows <= _FEW_ROWS
        room = np.empty((min(depth, terms) + lanes) * most * 64 + 64, np.uint8)
        panel = (np.int64(room.ctypes.data) + 63) & -64
        for top in range(0, rows, _HEIGHT):
            bottom = min(top + _HEIGHT, rows)
            for k in range(0, terms, depth):
                count = min(depth, terms - k)
                j = 0
                while j < columns:
                    vectors = -(-(columns - j) // lanes)
                    if vectors > most:  # the last two panels are nearly as wide
                        vectors = min(most, (vectors + 1) // 2)
                    width = min(columns - j, vectors * lanes)
                    right, distance = at_b + k * down_b + j * along_b, down_b
                    if not is_in_place:
                        pack(right, (down_b, along_b), (count, width), panel, widest, bits)
                        right, distance = panel, vectors * lanes * size
                    strides = (down_a, along_a, distance, down_c)
                    i = top
                    while i < bottom:
                        done = 0
                        for s in range(0, count, block):
                            done = tile(
                                at_a + i * down_a + (k + s) * along_a,
                                right + s * distance,
                                at_c + i * down_c + j * size,
                                strides,
                                (bottom - i, width, min(block, count - s)),
                                is_first and k + s == 0,
                                fields,
                                shifts,
                                plans,
                                _HEIGHTS,
                                widths,
                            )
                        i += done
                    j += width
        if terms == 0 and is_first:
            c[:] = 0
        room[0] = 0  # or Numba would free it after its address was taken
        swap_float_state(floats)

    kind = types.uint16 if inner == HALF else types.float32
    operand = types.Array(kind, 2, "A", readonly=True)
    constants = types.Array(types.uint64, 2, "C")
    result = types.Array(kind, 2, "A")
    signature = types.void(operand, operand, result, types.boolean, types.int64, constants)
    return compile_as(f"multiply|{plans}", multiply, signature)

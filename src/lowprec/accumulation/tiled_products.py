"""Matrix products on vectors, for the accumulators that the micro-kernels know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowprec.arrays.direct import lies_flat, lies_in_place
from lowprec.arrays.sources import kernel_dtype
from lowprec.conversion.door import decode, encode, round_to
from lowprec.conversion.requests import conversion_work
from lowprec.formats import Format, float16, float32
from lowprec.rounding import Overflow, Rounding

if TYPE_CHECKING:
    from collections.abc import Callable

    from lowprec.accumulation.accumulator import Accumulator

Array = np.ndarray[Any, Any]

_FLOAT32 = np.dtype(np.float32)
_DEPTH, _SIDE = 512, 512  # blocks of operands that are converted: terms, and rows or columns
_WHOLE = 1 << 18  # elements of an operand that is converted at once
_LONGEST_BLOCK = 2048  # terms of an accumulator's block


class Tiles(NamedTuple):
    """The micro-kernels for an accumulator, made ready."""

    loop: Callable[..., None]
    constants: Array
    block: int  # terms of a block
    fmt: Format  # of the inputs
    reads_float32: bool  # whether float32 may be read as it lies
    is_half: bool  # whether operands and sums are codes of float16
    convert: (
        Callable[..., None] | None
    )  # what makes operands of float32, if one step does and refuses nothing
    draws: bool = False  # whether sums are rounded at random

    @classmethod
    def of(cls, how: Accumulator, fmt: Format) -> Tiles | None:
        """Return the micro-kernels, or None where there are none."""
        is_blocked = how.order == "blocked"
        if not (is_blocked or how.order == "sequential") or how.is_nested:
            return None
        if not fmt.fits(float32):
            return None
        from lowprec.kernels.products import matmul as kernels  # imports Numba

        assert isinstance(how.rounding, Rounding)
        assert isinstance(how.overflow, Overflow)
        if how.is_stochastic:
            return None if is_blocked else cls._of_stochastic(how, fmt)
        outer, inner = how.formats
        formats = (fmt, inner, outer if is_blocked else None)
        found = kernels.product_plans(*formats, how.rounding, how.overflow, how.fused)
        if found is None or (how.block or 0) > _LONGEST_BLOCK:
            return None
        plans, constants = found
        is_half, convert = kernels.is_of_halves(plans), None
        if fmt.has_nan and (fmt == float16 or not is_half):
            nearest = Rounding.TIES_TO_EVEN, Overflow.IEEE, None
            task = "encode" if is_half else "round"
            convert = conversion_work(fmt, *nearest, _FLOAT32, task).kernel
        return cls(
            kernels.make_multiply(plans),
            constants,
            how.block or kernels.DEPTH,
            fmt,
            # elsewhere NaN must be canonical, which conversion makes it
            reads_float32=fmt == float32 and plans == kernels.FLOAT32,
            is_half=is_half,
            convert=convert,
        )

    @classmethod
    def _of_stochastic(cls, how: Accumulator, fmt: Format) -> Tiles | None:
        from lowprec.kernels.products import stochastic as kernels  # imports Numba

        assert isinstance(how.rounding, Rounding)
        assert isinstance(how.overflow, Overflow)
        modes = how.rounding, how.overflow, how.fused, how.random_bits
        found = kernels.stochastic_plans(fmt, how.formats[0], *modes)
        if found is None:
            return None
        return cls(found.loop(), found.constants, 1, fmt, False, False, None, draws=True)

    def direct(self, a: Array, b: Array) -> Any:
        """Return the product of two small float32 arrays after few checks, None if more are due.

        What kernels read as it lies may be large.
        """
        if not (a.dtype is b.dtype is _FLOAT32 and a.size and b.size):
            return None
        are_vectors = a.ndim == b.ndim == 1
        if are_vectors:
            a, b = a.reshape(1, -1), b.reshape(-1, 1)
        if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
            return None
        left, right = a.flags, b.flags
        if not (left.aligned and right.aligned):
            return None
        if not self.reads_float32:
            is_small = a.size <= _WHOLE and b.size <= _WHOLE
            if self.convert is None or not (is_small and left.c_contiguous and right.c_contiguous):
                return None
            source = np.uint16 if self.is_half else np.float32
            places = np.empty(a.shape, source), np.empty(b.shape, source)
            self.convert(a, places[0])
            self.convert(b, places[1])
            a, b = places
        result = np.empty((a.shape[0], b.shape[1]), a.dtype)
        self.loop(a, b, result, True, self.block, self.constants)
        if self.is_half:
            result = decode(result, float16)
        return result[0, 0] if are_vectors else result

    def multiply(self, a: Array, b: Array, result: Array, begun: Array | None = None) -> None:
        """Multiply two matrices; the sums begin with `begun`, values of their format."""
        assert not self.draws
        is_new = begun is None
        if self.is_half:
            codes = np.empty(result.shape, np.uint16)
            if begun is not None:
                encode(begun, float16, out=codes)
            self._multiply_blocks(a, b, codes, is_new)
            decode(codes.reshape(-1), float16, out=result.reshape(-1))
            return
        if begun is not None:
            result[...] = begun
        if self.reads_float32 and lies_in_place(a, _FLOAT32) and lies_in_place(b, _FLOAT32):
            self.loop(a, b, result, is_new, self.block, self.constants)
        else:
            self._multiply_blocks(a, b, result, is_new)

    def multiply_at_random(
        self, a: Array, b: Array, result: Array, keys: Array, output: int
    ) -> None:
        """Multiply two matrices, whose first output has an index; `keys` of sums and products."""

        def multiply(left: Array, right: Array, target: Array, k: int, place: int) -> None:
            numbers = k, output + place, result.shape[1]
            self.loop(left, right, target, k == 0, self.constants, *numbers, keys)

        self._each_block(a, b, result, multiply)

    def _multiply_blocks(self, a: Array, b: Array, result: Array, is_new: bool) -> None:
        """Multiply matrices that are converted block by block, unless they are small."""

        def multiply(left: Array, right: Array, target: Array, k: int, _: int) -> None:
            self.loop(left, right, target, is_new and k == 0, self.block, self.constants)

        self._each_block(a, b, result, multiply)

    def _each_block(
        self,
        a: Array,
        b: Array,
        result: Array,
        multiply: Callable[[Array, Array, Array, int, int], None],
    ) -> None:
        """Give converted blocks to a function, with their first term and their first output."""
        (rows, columns), terms = result.shape, a.shape[1]
        read_a, read_b = self._reader(a), self._reader(b)
        depth, side = terms, max(rows, columns)
        if max(a.size, b.size) > _WHOLE:
            depth, side = self.block * max(1, _DEPTH // self.block), _SIDE
        for k in range(0, terms, depth):
            for j in range(0, columns, side):
                right = read_b(slice(k, k + depth), slice(j, j + side))
                for i in range(0, rows, side):
                    left = read_a(slice(i, i + side), slice(k, k + depth))
                    target = result[i : i + side, j : j + side]
                    multiply(left, right, target, k, i * columns + j)

    def _reader(self, x: Array) -> Callable[[slice, slice], Array]:
        """Return what gives converted blocks of a matrix; a small one is converted at once."""
        if x.size <= _WHOLE:
            whole = self._converted(x)
            return lambda rows, columns: whole[rows, columns]
        return lambda rows, columns: self._converted(x[rows, columns])

    def _converted(self, x: Array) -> Array:
        """Return a matrix as the kernels read it, in the same order in memory."""
        if self.reads_float32 and lies_in_place(x, _FLOAT32):
            return x
        if abs(x.strides[0]) < abs(x.strides[1]):  # its columns lie together, as rows elsewhere
            return self._converted_rows(x.T).T
        return self._converted_rows(x)

    def _converted_rows(self, x: Array) -> Array:
        if self.is_half and self.fmt != float16:
            x = as_inputs(x, self.fmt)
        convert, dtype = (encode, np.uint16) if self.is_half else (round_to, np.float32)
        fmt = float16 if self.is_half else self.fmt
        if not lies_flat(x, _FLOAT32):
            converted: Array = convert(x, fmt)
            return converted.astype(dtype, copy=False)
        converted = np.empty(x.shape, dtype)
        convert(x.reshape(-1), fmt, out=converted.reshape(-1))  # small ones without delay
        return converted


def as_inputs(x: Array, fmt: Format) -> Array:
    """Round a block to the inputs' format: float32 where it holds the values, else float64."""
    source = kernel_dtype(x.dtype)
    if source == np.float32 and not fmt.fits(float32):
        x = x.astype(np.float64)
    rounded: Array = round_to(x, fmt)
    return rounded.astype(np.float32, copy=False) if fmt.fits(float32) else rounded

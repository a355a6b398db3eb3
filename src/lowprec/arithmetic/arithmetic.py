"""Arithmetic in a format: every operation is rounded once, from its exact result."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.arithmetic.elementwise import BLOCK, refuse_nan, run
from lowprec.arithmetic.flags import MOST_RECORDED, Flags
from lowprec.arithmetic.methods import Operations
from lowprec.arrays.direct import OnNumbers, place_for
from lowprec.arrays.layouts import check_out, refuse_foreign_memory
from lowprec.arrays.sources import as_array, is_scalar, kernel_dtype
from lowprec.common.names import one_of
from lowprec.common.processor_state import in_exact_state
from lowprec.common.randomness import as_generator, draw_key
from lowprec.conversion.door import round_to
from lowprec.formats import Format, FormatLike, float32, get_format
from lowprec.rounding import Rounding, checked_overflow

if TYPE_CHECKING:
    from lowprec.arithmetic.elementwise import ElementKernel
    from lowprec.common.randomness import RNGLike
    from lowprec.rounding import Overflow, OverflowLike, RoundingLike

    Array = np.ndarray[Any, Any]

_FLOAT64 = np.dtype(np.float64)
_LONGEST = 24  # bits of a significand; of a product twice as many, which float64 holds
_TININESS = ("before", "after")
_LARGEST = 500  # exponent; products and quotients of all values are then normal in float64


class Arithmetic(Operations):
    """The operations of a format, as ideal hardware would compute them.

    Operands are converted to the format first, with the same rounding and overflow. Then every
    operation returns its exact result rounded once, in every mode: there is no double rounding
    through float32 or float64.

    Parameters
    ----------
    fmt : Format, str or dtype
        The format: precision at most 24, magnitudes from 2**-500 to 2**500. All named formats but
        float64 are.
    rounding : Rounding or str
        As for `round_to`. A stochastic mode compares the fraction lost with min(32, 52 - p) random
        bits.
    overflow : Overflow or str
        As for `round_to`; exact infinities, as of 1/0, are infinite sources there.
    flush_to_zero : bool
        Whether a result that is tiny becomes zero of its sign, with underflow and inexact.
        `minimum` and `maximum` compute nothing and so flush nothing.
    denormals_are_zero : bool
        Whether operands that are subnormal after their conversion are taken as zero of their sign.
    tininess : str
        Which results are tiny, that is less in magnitude than the smallest normal number:
        ``before``, the exact result decides (as on ARM); ``after``, the result rounded as if the
        exponent had no lower bound (as on x86, RISC-V and GPUs). Tiny and inexact results are
        counted as underflow. IEEE 754-2019, section 7.5, leaves the choice to the implementer.
    rng : None, int, numpy.random.SeedSequence or numpy.random.Generator
        Where the stochastic modes draw one key a call from. The result then depends on the key and
        each element's index in C order alone.
    flags : bool
        Whether to count events.

    Raises
    ------
    ValueError
        If the format is too wide, or has no zero to flush to.

    Notes
    -----
    Operands are anything that `round_to` takes and broadcast as NumPy's do; `out` is an array of
    the result's shape and dtype, and may be an operand. Results are float32, or float64 where
    float32 cannot hold the format's values; operands that are all scalars give a NumPy scalar.

    NaN from any operand, and from invalid operations, is the canonical quiet NaN without a sign.
    Overflow gives what `round_to` gives, a signed NaN in formats without infinities. In a format
    without NaN such results, like NaN operands, are a ValueError; nothing has been written then. In
    an unsigned format a negative result is NaN and invalid, in float8_e8m0fnu zero as well.

    Integers of 64 bits, and all operands in a stochastic mode, are converted beforehand, which
    takes memory of their size; so does `out` in a format without NaN.

    Examples
    --------
    >>> bf16 = Arithmetic("bfloat16", rounding="toward_positive")
    >>> float(bf16.add(1, 2.0**-100))
    1.0078125
    >>> bf16.divide([1.0, -1.0, 0.0], 0)
    array([ inf, -inf,  nan], dtype=float32)
    >>> bf16.flags
    Flags(invalid=1, divide_by_zero=2, overflow=0, underflow=0, inexact=1)

    References
    ----------
    IEEE 754-2019, sections 5.3.1, 5.4.1, 7 and 9.6.
    """

    def __init__(
        self,
        fmt: FormatLike,
        *,
        rounding: RoundingLike = "ties_to_even",
        overflow: OverflowLike = "ieee",
        flush_to_zero: bool = False,
        denormals_are_zero: bool = False,
        tininess: str = "before",
        rng: RNGLike = None,
        flags: bool = True,
    ) -> None:
        self._format = get_format(fmt)
        self._rounding = Rounding(rounding)
        self._overflow = checked_overflow(overflow, self._format)
        self._flush_to_zero = bool(flush_to_zero)
        self._denormals_are_zero = bool(denormals_are_zero)
        self._tininess = str(one_of(tininess, _TININESS, "tininess"))
        self._flags = Flags() if flags else None
        self._generator = as_generator(rng) if self._rounding.is_stochastic else None
        self._result = np.dtype(np.float32 if self._format.fits(float32) else np.float64)
        # kernels to which simple calls may go at once: arrays by their dtype, and numbers
        self._ready: dict[tuple[str, np.dtype[Any]], ElementKernel] = {}
        self._on_numbers: dict[str, OnNumbers] = {}
        _check_format(self._format)
        if flush_to_zero and not self._format.has_zero:
            raise ValueError(f"{self._format} has no zero; use flush_to_zero=False")

    @property
    def fmt(self) -> Format:
        """The format of operands and results."""
        return self._format

    @property
    def rounding(self) -> Rounding:
        """How results and operands are rounded."""
        return self._rounding

    @property
    def overflow(self) -> Overflow:
        """What becomes of values beyond the largest finite one."""
        return self._overflow

    @property
    def flush_to_zero(self) -> bool:
        """Whether tiny results become zero."""
        return self._flush_to_zero

    @property
    def denormals_are_zero(self) -> bool:
        """Whether subnormal operands are taken as zero."""
        return self._denormals_are_zero

    @property
    def tininess(self) -> str:
        """Whether results are looked at before or after rounding to tell which are tiny."""
        return self._tininess

    @property
    def flags(self) -> Flags:
        """The events so far, by operation and in total.

        Raises
        ------
        ValueError
            If this arithmetic was made with ``flags=False``.
        """
        if self._flags is None:
            raise ValueError("this Arithmetic does not count events; make it with flags=True")
        return self._flags

    def __repr__(self) -> str:
        words = [repr(self.fmt), f"rounding={self.rounding.value!r}"]
        words.append(f"overflow={self.overflow.value!r}")
        switches = ("flush_to_zero", "denormals_are_zero")
        words += [f"{name}=True" for name in switches if getattr(self, name)]
        words += ["tininess='after'"] * (self._tininess == "after")
        return f"Arithmetic({', '.join(words + ['flags=False'] * (self._flags is None))})"

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_ready": {}, "_on_numbers": {}}  # compiled code stays behind

    # Computing -------------------------------------------------------------------------------

    def _compute(self, operation: str, operands: tuple[Any, ...], out: Any) -> Any:
        """Check everything, hand arrays to the kernel, and record the events."""
        first = operands[0]
        place = found = None
        if type(first) is np.ndarray:
            kernel = self._ready.get((operation, first.dtype))
            if kernel is not None:
                place = place_for(operands, out, self._result)
                if place is not None and place.ndim == 1:
                    found = place, kernel(operands, place)
                elif place is not None:
                    flat = [x.reshape(-1) for x in operands]
                    found = place, kernel(flat, place.reshape(-1))
        elif out is None and operation in self._on_numbers:
            found = self._on_numbers[operation](operands)
        result, events = found or self._compute_any(operation, operands, out)
        if self._flags is not None:  # what `Flags.record` does, without a call
            recorded = self._flags.recorded
            recorded.append((operation, events))
            if len(recorded) > MOST_RECORDED:
                self._flags.add_up()
        return result

    def _compute_any(
        self, operation: str, operands: tuple[Any, ...], out: Array | None
    ) -> tuple[Any, Array]:
        arrays = [as_array(operand) for operand in operands]
        shape = np.broadcast_shapes(*(array.shape for array in arrays))
        if out is not None:
            check_out(out, shape, self._result)
            refuse_foreign_memory(out, *arrays)
        key = 0 if self._generator is None else draw_key(self._generator)
        arrays = [self._prepared(array, key, place) for place, array in enumerate(arrays)]
        if shape:
            arrays = [self._beside_arrays(array, shape) for array in arrays]
        source = np.result_type(*map(_kernel_dtype, arrays)) if shape else _FLOAT64
        kernel = self._ready.get((operation, source)) or self._kernel(operation, source)
        has_nan = self._format.has_nan
        result = out if out is not None and has_nan else np.empty(shape, self._result)
        events = run(kernel, arrays, result, key)
        if not has_nan:
            refuse_nan(result, operation, self._format)
            if out is not None:
                np.copyto(out, result)
                result = out
        are_scalars = out is None and all(map(is_scalar, operands))
        return result[()] if are_scalars else result, events

    def _prepared(self, array: Array, key: int, place: int) -> Array:
        """Convert an operand that the kernel does not convert, in its own shape."""
        dtype = _kernel_dtype(array)
        if not self._converts_beforehand and dtype.kind == "f":
            return array
        if dtype != self._result and dtype == np.float32:
            array = _resized(array, _FLOAT64)
        seed = np.random.SeedSequence([key, place]) if self._rounding.is_stochastic else None
        return self._converted(array, seed)

    def _converted(self, array: Array, seed: Any = None) -> Array:
        how = {"rounding": self._rounding, "overflow": self._overflow, "rng": seed}
        return round_to(array, self._format, **how)

    def _beside_arrays(self, array: Array, shape: tuple[int, ...]) -> Array:
        """Return a number as a value of the results' dtype, and for small arrays in their shape.

        Float32 arrays then stay what they are: a float64 number would have them all widened.
        """
        if array.ndim or array.dtype.kind != "f":
            return array
        if not self._converts_beforehand:
            array = self._converted(array if array.dtype == _FLOAT64 else _resized(array, _FLOAT64))
        array = _resized(array, self._result)
        return np.full(shape, array) if math.prod(shape) <= BLOCK else array

    @property
    def _converts_beforehand(self) -> bool:
        """Whether conversion depends on an operand's own shape, or may refuse an operand."""
        return self._rounding.is_stochastic or not self._format.has_nan

    def _kernel(self, operation: str, source: np.dtype[Any]) -> ElementKernel:
        from lowprec.arithmetic.elementary import NAMES, elementary_kernel  # imports Numba
        from lowprec.kernels.operations.loops import operation_kernel

        mode = (self._format, source.name, self._rounding, self._overflow)
        switches = {
            "operands_are_values": self._converts_beforehand,
            "flush_to_zero": self._flush_to_zero,
            "denormals_are_zero": self._denormals_are_zero,
            "tiny_after_rounding": self._tininess == "after",
        }
        kernel: ElementKernel
        if operation in NAMES:  # these count at no cost worth saving
            kernel = elementary_kernel(operation, *mode, **switches)
        else:
            kernel = operation_kernel(operation, *mode, flags=self._flags is not None, **switches)
        if not self._converts_beforehand:
            self._ready[operation, source] = kernel
            if source == _FLOAT64:
                self._on_numbers[operation] = OnNumbers(kernel, self._result)
        return kernel


@in_exact_state
def _resized(array: Array, dtype: np.dtype[Any]) -> Array:
    return array.astype(dtype, copy=False)


@in_exact_state
def _check_format(fmt: Format) -> None:
    lowest = math.frexp(fmt.smallest_subnormal)[1]
    if fmt.precision > _LONGEST or fmt.emax >= _LARGEST or lowest <= -_LARGEST:
        raise ValueError(
            f"no arithmetic in {str(fmt)!r} (p={fmt.precision}, emin={fmt.emin}, "
            f"emax={fmt.emax}): operations are exact for a precision of at most {_LONGEST} and "
            f"magnitudes from 2**-{_LARGEST} to 2**{_LARGEST}; use float32 or a narrower format"
        )


def _kernel_dtype(array: Array) -> np.dtype[Any]:
    return kernel_dtype(array.dtype)

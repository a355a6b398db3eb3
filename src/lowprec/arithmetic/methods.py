"""The operations of an arithmetic by name: what each returns for special operands."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Any

from lowprec.arrays.types import binary, ternary, unary

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike

    Array = np.ndarray[Any, Any]


class Operations(abc.ABC):
    """Methods that name an operation and its operands; `_compute` does the rest."""

    @abc.abstractmethod
    def _compute(self, operation: str, operands: tuple[ArrayLike, ...], out: Array | None) -> Any:
        """Return the result of an operation on operands that broadcast."""

    @binary
    def add(self, a: ArrayLike, b: ArrayLike, *, out: Array | None = None) -> Any:
        """Return a + b; an exact zero from operands of different signs is -0 toward_negative."""
        return self._compute("add", (a, b), out)

    @binary
    def subtract(self, a: ArrayLike, b: ArrayLike, *, out: Array | None = None) -> Any:
        """Return a - b; zero as in `add`."""
        return self._compute("subtract", (a, b), out)

    @binary
    def multiply(self, a: ArrayLike, b: ArrayLike, *, out: Array | None = None) -> Any:
        """Return a · b; 0 · inf is NaN and invalid."""
        return self._compute("multiply", (a, b), out)

    @binary
    def divide(self, a: ArrayLike, b: ArrayLike, *, out: Array | None = None) -> Any:
        """Return a / b; a/0 is infinite and divide_by_zero, 0/0 and inf/inf are NaN and invalid."""
        return self._compute("divide", (a, b), out)

    @unary
    def sqrt(self, a: ArrayLike, *, out: Array | None = None) -> Any:
        """Return the square root; that of -0 is -0, of negative numbers NaN and invalid."""
        return self._compute("sqrt", (a,), out)

    @ternary
    def fma(self, a: ArrayLike, b: ArrayLike, c: ArrayLike, *, out: Array | None = None) -> Any:
        """Return a · b + c rounded once; 0 · inf + NaN is NaN and not invalid.

        Examples
        --------
        >>> import lowprec
        >>> half = lowprec.Arithmetic("float16")
        >>> a, b, c = 1 + 2.0**-10, 1 + 2.0**-10, -1 - 2.0**-9
        >>> float(half.fma(a, b, c)), float(half.add(half.multiply(a, b), c))
        (9.5367431640625e-07, 0.0)
        """
        return self._compute("fma", (a, b, c), out)

    @binary
    def remainder(self, a: ArrayLike, b: ArrayLike, *, out: Array | None = None) -> Any:
        """Return a - n·b with n the integer nearest to a/b, of two the even one.

        This is IEEE 754's remainder (`math.remainder`), not NumPy's; it is exact. Zero has the sign
        of a. Infinite a and zero b give NaN and are invalid; an infinite b gives a.

        Examples
        --------
        >>> import lowprec
        >>> lowprec.Arithmetic("bfloat16").remainder([5, 6, 7, -8], 4)
        array([ 1., -2., -1., -0.], dtype=float32)
        """
        return self._compute("remainder", (a, b), out)

    @binary
    def floor_divide(self, a: ArrayLike, b: ArrayLike, *, out: Array | None = None) -> Any:
        """Return the floor of a / b, as NumPy's: the exact integer rounded once.

        Quotients between -1 and 0 give -1, and an exact zero the sign of a / b. a/0 is infinite
        and divide_by_zero, 0/0 NaN and invalid, as in `divide`. An infinite a gives NaN and is
        invalid, but infinite over 0, without an event. An infinite b gives 0, or -1 if a is not
        zero and has another sign.

        Examples
        --------
        >>> import lowprec
        >>> lowprec.Arithmetic("bfloat16").floor_divide([7, -7, 1000, -0.0], [2, 2, 3, 1])
        array([  3.,  -4., 332.,  -0.], dtype=float32)
        """
        return self._compute("floor_divide", (a, b), out)

    @binary
    def mod(self, a: ArrayLike, b: ArrayLike, *, out: Array | None = None) -> Any:
        """Return a - floor(a/b)·b, as NumPy's `mod`: of the sign of b, and rounded once.

        With operands of one sign it is exact; with others, what is left of a plus b is rounded, and
        a small a can give b itself. Zero has the sign of b. Zero b and infinite a give NaN and are
        invalid. An infinite b gives a, zero for zero, and b itself if a has another sign.
        `remainder` is IEEE 754's.

        Examples
        --------
        >>> import lowprec
        >>> lowprec.Arithmetic("bfloat16").mod([7, -7, 7, -4, -1e-9], [4, 4, -4, 2, 1])
        array([ 3.,  1., -1.,  0.,  1.], dtype=float32)
        """
        return self._compute("mod", (a, b), out)

    @unary
    def square(self, a: ArrayLike, *, out: Array | None = None) -> Any:
        """Return a · a."""
        return self._compute("square", (a,), out)

    @unary
    def abs(self, a: ArrayLike, *, out: Array | None = None) -> Any:
        """Return a without its sign, which computes nothing: no events, no flushing."""
        return self._compute("abs", (a,), out)

    @unary
    def negative(self, a: ArrayLike, *, out: Array | None = None) -> Any:
        """Return a with the other sign, also of zero, where the format has it.

        Nothing is computed, so that there are no events and no flushing; but what has no negative,
        in an unsigned format, gives NaN and is invalid.
        """
        return self._compute("negative", (a,), out)

    @binary
    def minimum(self, a: ArrayLike, b: ArrayLike, *, out: Array | None = None) -> Any:
        """Return the smaller operand; NaN if one is NaN; -0 is less than +0. No events."""
        return self._compute("minimum", (a, b), out)

    @binary
    def maximum(self, a: ArrayLike, b: ArrayLike, *, out: Array | None = None) -> Any:
        """Return the larger operand; NaN if one is NaN; +0 is more than -0. No events."""
        return self._compute("maximum", (a, b), out)

    # Elementary functions --------------------------------------------------------------------

    @unary
    def exp(self, a: ArrayLike, *, out: Array | None = None) -> Any:
        """Return e to the power a."""
        return self._compute("exp", (a,), out)

    @unary
    def exp2(self, a: ArrayLike, *, out: Array | None = None) -> Any:
        """Return 2 to the power a; exact for integers."""
        return self._compute("exp2", (a,), out)

    @unary
    def expm1(self, a: ArrayLike, *, out: Array | None = None) -> Any:
        """Return exp(a) - 1, rounded once."""
        return self._compute("expm1", (a,), out)

    @unary
    def log(self, a: ArrayLike, *, out: Array | None = None) -> Any:
        """Return the natural logarithm; that of 0 is -inf and divide_by_zero, of less invalid."""
        return self._compute("log", (a,), out)

    @unary
    def log2(self, a: ArrayLike, *, out: Array | None = None) -> Any:
        """Return the logarithm to base 2; exact for powers of two, 0 and less as in `log`."""
        return self._compute("log2", (a,), out)

    @unary
    def log10(self, a: ArrayLike, *, out: Array | None = None) -> Any:
        """Return the logarithm to base 10; exact for powers of ten, 0 and less as in `log`."""
        return self._compute("log10", (a,), out)

    @unary
    def log1p(self, a: ArrayLike, *, out: Array | None = None) -> Any:
        """Return log(1 + a), rounded once; at -1 it is -inf and divide_by_zero, below invalid."""
        return self._compute("log1p", (a,), out)

    @unary
    def sin(self, a: ArrayLike, *, out: Array | None = None) -> Any:
        """Return the sine of an angle in radians; of infinities NaN and invalid."""
        return self._compute("sin", (a,), out)

    @unary
    def cos(self, a: ArrayLike, *, out: Array | None = None) -> Any:
        """Return the cosine of an angle in radians; of infinities NaN and invalid."""
        return self._compute("cos", (a,), out)

    @unary
    def tan(self, a: ArrayLike, *, out: Array | None = None) -> Any:
        """Return the tangent of an angle in radians; of infinities NaN and invalid."""
        return self._compute("tan", (a,), out)

    @unary
    def sinh(self, a: ArrayLike, *, out: Array | None = None) -> Any:
        """Return the hyperbolic sine."""
        return self._compute("sinh", (a,), out)

    @unary
    def cosh(self, a: ArrayLike, *, out: Array | None = None) -> Any:
        """Return the hyperbolic cosine."""
        return self._compute("cosh", (a,), out)

    @unary
    def tanh(self, a: ArrayLike, *, out: Array | None = None) -> Any:
        """Return the hyperbolic tangent."""
        return self._compute("tanh", (a,), out)

    @unary
    def asin(self, a: ArrayLike, *, out: Array | None = None) -> Any:
        """Return the arc sine, from -π/2 to π/2; beyond ±1 NaN and invalid."""
        return self._compute("asin", (a,), out)

    @unary
    def acos(self, a: ArrayLike, *, out: Array | None = None) -> Any:
        """Return the arc cosine, from 0 to π; +0 at 1, beyond ±1 NaN and invalid."""
        return self._compute("acos", (a,), out)

    @unary
    def atan(self, a: ArrayLike, *, out: Array | None = None) -> Any:
        """Return the arc tangent, from -π/2 to π/2; at infinities these, rounded."""
        return self._compute("atan", (a,), out)

    @unary
    def sigmoid(self, a: ArrayLike, *, out: Array | None = None) -> Any:
        """Return 1 / (1 + exp(-a)), rounded once."""
        return self._compute("sigmoid", (a,), out)

    @unary
    def erf(self, a: ArrayLike, *, out: Array | None = None) -> Any:
        """Return the error function."""
        return self._compute("erf", (a,), out)

    @unary
    def cbrt(self, a: ArrayLike, *, out: Array | None = None) -> Any:
        """Return the cube root; that of negative numbers is negative."""
        return self._compute("cbrt", (a,), out)

    @unary
    def rsqrt(self, a: ArrayLike, *, out: Array | None = None) -> Any:
        """Return 1 / sqrt(a), rounded once; of ±0 ±inf and divide_by_zero, of less invalid."""
        return self._compute("rsqrt", (a,), out)

    @unary
    def reciprocal(self, a: ArrayLike, *, out: Array | None = None) -> Any:
        """Return 1 / a; of ±0 ±inf and divide_by_zero."""
        return self._compute("reciprocal", (a,), out)

    @binary
    def power(self, a: ArrayLike, b: ArrayLike, *, out: Array | None = None) -> Any:
        """Return a to the power b, with the special cases of IEEE 754-2019's pow (section 9.2.1).

        Examples
        --------
        >>> import lowprec
        >>> lowprec.Arithmetic("bfloat16").power([9, -2, 0, -1], [0.5, 3, -1, 0.5])
        array([ 3., -8., inf, nan], dtype=float32)
        """
        return self._compute("power", (a, b), out)

    @binary
    def atan2(self, a: ArrayLike, b: ArrayLike, *, out: Array | None = None) -> Any:
        """Return the angle of the point (b, a), the arc tangent of a / b in its quadrant.

        Signs of zero, and infinities, decide as in IEEE 754-2019, section 9.2.1, and NumPy's
        `arctan2`: 0 over -0 gives π. Multiples of π/4 are rounded; nothing is invalid.

        Examples
        --------
        >>> import lowprec
        >>> lowprec.Arithmetic("bfloat16").atan2([1, 0.0, -0.0, -1], [1, -1, 2, 0])
        array([ 0.78515625,  3.140625  , -0.        , -1.5703125 ], dtype=float32)
        """
        return self._compute("atan2", (a, b), out)

    @binary
    def hypot(self, a: ArrayLike, b: ArrayLike, *, out: Array | None = None) -> Any:
        """Return sqrt(a² + b²), rounded once; infinite where an operand is, beside NaN too.

        Examples
        --------
        >>> import lowprec
        >>> lowprec.Arithmetic("float16").hypot([3, 60000], 4)
        array([5.e+00, 6.e+04], dtype=float32)
        """
        return self._compute("hypot", (a, b), out)

"""What a line of the program computes with: a format, its arithmetic, its accumulator."""

from __future__ import annotations

import functools
import math
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.accumulation.accumulator import Accumulator
from lowprec.arithmetic.arithmetic import Arithmetic
from lowprec.arithmetic.flags import Events
from lowprec.conversion.door import round_to
from lowprec.exact.limits import finfo
from lowprec.formats import Format, float32, float64
from lowprec.rounding import Rounding
from lowprec.trace.operations import method_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from lowprec.rounding import OverflowLike, RoundingLike

Array = np.ndarray[Any, Any]

_NOTHING = np.zeros(len(Events._fields), np.int64)


class _CountingArithmetic(Arithmetic):
    """An arithmetic that tells the events of its latest operation without adding them up."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._latest: deque[tuple[str, Any]] = deque(maxlen=1)
        assert self._flags is not None
        self._flags.recorded = self._latest

    @property
    def latest(self) -> Any:
        """The counts of `Events` of the latest operation."""
        return self._latest[0][1] if self._latest else _NOTHING


class Kit:
    """A format with all that computes in it.

    fmt: The format of the line.
    is_numpy (bool): Whether lines compute as NumPy does, in float64.
    """

    def __init__(
        self,
        fmt: Format,
        rounding: RoundingLike,
        overflow: OverflowLike,
        rng: np.random.Generator | None,
        accumulator: Accumulator | None,
    ) -> None:
        self.fmt = fmt
        self.is_numpy = fmt == float64
        self.rounding, self.overflow, self.rng = rounding, overflow, rng
        self.dtype: np.dtype[Any] = np.dtype(np.float32 if fmt.fits(float32) else np.float64)
        self.arithmetic: Any = None
        if not self.is_numpy:
            self.arithmetic = _CountingArithmetic(
                fmt, rounding=rounding, overflow=overflow, rng=rng
            )
        self.accumulator: Accumulator | None = accumulator
        if accumulator is None and not self.is_numpy:
            self.accumulator = Accumulator(fmt, rounding=rounding, overflow=overflow, rng=rng)
        self._methods: dict[str, Any] = {}
        self.is_deterministic = not Rounding(rounding).is_stochastic
        # One rounding of float64's result is the operation's own: Figueroa (1995), 53 ≥ 2p + 2.
        plain = Rounding(rounding) is Rounding.TIES_TO_EVEN and fmt.subnormals and fmt.signed
        self.has_scalar_path = self.is_numpy or (
            plain and fmt.has_zero and 2 <= fmt.precision <= 25
        )
        self.has_signs = fmt.signed and fmt.has_negative_zero  # of every value
        self.enter_one: Callable[[float], float] = self._enter_slowly
        if self.is_numpy:
            self.enter_one = float
        elif self.has_scalar_path:
            self.enter_one = _scalar_rounding(fmt, self._enter_slowly)

    def __repr__(self) -> str:
        return str(self.fmt)

    def enter(self, x: Any) -> Array:
        """Return an array of real numbers, each rounded once, of the dtype of results."""
        if self.is_numpy:
            return np.asarray(x, np.float64)
        values = round_to(
            x, self.fmt, rounding=self.rounding, overflow=self.overflow, rng=self._rng
        )
        return np.asarray(values, self.dtype)

    @property
    def _rng(self) -> np.random.Generator | None:
        return None if self.is_deterministic else self.rng

    def _enter_slowly(self, x: float) -> float:
        return float(
            round_to(x, self.fmt, rounding=self.rounding, overflow=self.overflow, rng=self._rng)
        )

    def method(self, name: str) -> Any:
        """Return the operation that a function of NumPy is in the format; None if there is none."""
        if name not in self._methods:
            method = method_of(name)
            self._methods[name] = None if method is None else getattr(self.arithmetic, method)
        return self._methods[name]

    def events(self) -> Any:
        """Return the counts of `Events` of the latest operation."""
        return _NOTHING if self.arithmetic is None else self.arithmetic.latest

    def finfo(self) -> Any:
        """Return what `numpy.finfo` would say of the format."""
        return finfo(self.fmt)


@functools.lru_cache(32)
def _rounders(fmt: Format) -> tuple[int, int, list[float]]:
    """Return for each binary exponent, from a lowest to a highest, 1.5 · 2**52 spacings."""
    p, low, high = fmt.precision, -1080, fmt.emax + 2
    steps = [max(e - p, fmt.emin - p + 1) for e in range(low, high + 1)]
    return low, high, [math.ldexp(1.5, 52 + s) if 52 + s < 1024 else math.nan for s in steps]


def _scalar_rounding(fmt: Format, otherwise: Callable[[float], float]) -> Callable[[float], float]:
    """Return a function that rounds a float64 to nearest with ties to even.

    Adding and subtracting 1.5 · 2**52 spacings rounds to a multiple of the spacing, since float64
    itself rounds to nearest with ties to even.
    """
    low, high, magic = _rounders(fmt)
    largest = float(fmt.max)
    frexp, copysign, has_minus_zero = math.frexp, math.copysign, fmt.has_negative_zero

    def round_one(x: float) -> float:
        e = frexp(x)[1]
        if e > high:
            return otherwise(x)
        m = magic[e - low]
        r = (x + m) - m
        if r == 0.0:
            return copysign(0.0, x) if has_minus_zero else otherwise(x)
        if -largest <= r <= largest:
            return r
        return otherwise(x)  # overflow, an infinity or NaN

    return round_one

"""What is timed: one float32 array, lowprec's work on it, and the copy that is the yardstick."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import ml_dtypes
import numpy as np

import lowprec as lp

if TYPE_CHECKING:
    from timing import Work

FORMATS = ("bfloat16", "float16", "float8_e4m3fn", "float8_e5m2")

#: Statements for a new process: a first call, and a check that the import alone stayed light.
FIRST_CALL = "assert lowprec.round_to(0.1, 'bfloat16') == 0.10009765625"
LAZY = "import sys; assert not {'numba', 'scipy', 'rich', 'matplotlib'} & sys.modules.keys()"


class Workload:
    """Float32 values of both signs, 2**-14 … 2**8 and 0: normal and subnormal, none overflows.

    Every method returns a call without arguments that writes into an array allocated before.
    """

    def __init__(self, elements: int) -> None:
        rng = np.random.default_rng(0)
        scales = np.exp2(np.arange(-14, 7, dtype=np.float32))
        self.x = rng.uniform(-4, 4, elements).astype(np.float32)
        self.x *= scales[rng.integers(len(scales), size=elements, dtype=np.int8)]
        self.y = np.zeros_like(self.x)
        self._copied = np.zeros_like(self.x)

    def copy(self) -> Work:
        """Copy float32 to float32: the yardstick."""

        def work() -> np.ndarray:
            np.copyto(self._copied, self.x)
            return self._copied

        return work

    def encode(self, fmt: str, **options: Any) -> Work:
        """Encode into codes."""
        out = np.zeros(self.x.shape, lp.get_format(fmt).code_dtype)
        return functools.partial(lp.encode, self.x, fmt, out=out, **options)

    def decode(self, fmt: str) -> Work:
        """Decode the codes of the values."""
        return functools.partial(lp.decode, lp.encode(self.x, fmt), fmt, out=self.y)

    def round_to(self, fmt: str, **options: Any) -> Work:
        """Round to values of the format."""
        return functools.partial(lp.round_to, self.x, fmt, out=self.y, **options)


@functools.lru_cache(maxsize=1)
def workload(elements: int) -> Workload:
    """Make the workload of so many elements, or return the one in hand."""
    return Workload(elements)


class SmallCall(NamedTuple):
    """A call of a microsecond or so, and what it must return or have written to `out`."""

    call: Work
    answer: Any = None  # None if random bits decide
    out: np.ndarray | None = None

    def is_right(self) -> bool:
        """Whether the call gives its answer."""
        result = self.call()
        got = result if self.out is None else self.out
        return self.answer is None or bool(np.array_equal(got, self.answer))


@functools.cache
def small_calls() -> dict[str, SmallCall]:
    """Make calls on 10 contiguous elements, bfloat16 beside float32, with `out` and without."""
    x = np.linspace(-3, 3, 10, dtype=np.float32)
    codes = lp.encode(x.astype(np.float64), "bfloat16")
    values = lp.decode(codes, "bfloat16")
    doubled = 2 * values
    narrow, wide, copied = np.zeros_like(codes), np.zeros_like(x), np.zeros_like(x)
    arithmetic, generator = lp.Arithmetic("bfloat16"), np.random.default_rng(0)
    stochastic = functools.partial(lp.round_to, rounding="stochastic", rng=generator)
    spacing = [2.0 ** (np.floor(np.log2(abs(v))) - 7) for v in x.tolist()]
    total = np.cumsum(x, dtype=np.float32)[-1]
    product = np.cumsum(values * values, dtype=np.float32)[-1]
    add = arithmetic.add
    return {
        "copy": SmallCall(lambda: np.copyto(copied, x), x, copied),
        "encode, out": SmallCall(lambda: lp.encode(x, "bfloat16", out=narrow), codes, narrow),
        "decode, out": SmallCall(lambda: lp.decode(codes, "bfloat16", out=wide), values, wide),
        "round_to, out": SmallCall(lambda: lp.round_to(x, "bfloat16", out=wide), values, wide),
        "add, out": SmallCall(lambda: add(values, values, out=wide), doubled, wide),
        "encode": SmallCall(lambda: lp.encode(x, "bfloat16"), codes),
        "decode": SmallCall(lambda: lp.decode(codes, "bfloat16"), values),
        "round_to": SmallCall(lambda: lp.round_to(x, "bfloat16"), values),
        "round_to, scalar": SmallCall(lambda: lp.round_to(0.1, "bfloat16"), 0.10009765625),
        "round_to, stochastic": SmallCall(lambda: stochastic(x, "bfloat16")),
        "add": SmallCall(lambda: add(values, values), doubled),
        "add, scalars": SmallCall(lambda: add(0.1, 0.2), 0.30078125),
        "sum": SmallCall(lambda: lp.sum(x, "float32"), total),
        "dot": SmallCall(lambda: lp.dot(x, x), product),
        "ulp": SmallCall(lambda: lp.ulp(x, "bfloat16"), spacing),
        "measure": SmallCall(lambda: lp.measure(x, "bfloat16").count, 10),
        "numpy.add": SmallCall(lambda: np.add(x, x), 2 * x),
        "ml_dtypes": SmallCall(lambda: x.astype(ml_dtypes.bfloat16), values),
    }

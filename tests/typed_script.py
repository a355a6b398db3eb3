"""A user's script, for type checkers alone: what is typed how, and which words are refused."""

from __future__ import annotations

from typing import Any, assert_type

import numpy as np

import lowprec as lp

Array = np.ndarray[Any, np.dtype[Any]]
x = np.ones((2, 3), np.float32)

# A scalar gives a NumPy scalar, anything else an array.
assert_type(lp.round_to(0.1, "bfloat16"), np.floating[Any])
assert_type(lp.round_to(np.float32(0.1), lp.bfloat16, rounding="RZ"), np.floating[Any])
assert_type(lp.round_to(3, np.float16), np.floating[Any])
assert_type(lp.round_to(x, "bfloat16", rounding=lp.Rounding.TO_ODD), Array)
assert_type(lp.round_to([0.1, 0.2], "e6m9", overflow="saturate"), Array)
assert_type(lp.round_to(x, "bfloat16", out=x), Array)
assert_type(lp.encode(0.1, "bfloat16"), np.unsignedinteger[Any])
assert_type(lp.encode(x, "bfloat16", rounding="stochastic", rng=0), Array)
assert_type(lp.cast(x, "float16"), Array)
assert_type(lp.decode(0x3F80, "bfloat16"), np.floating[Any])
assert_type(lp.decode(np.array([1], np.uint16), "bfloat16", dtype="float64"), Array)
assert_type(lp.ulp(1.0, "float16"), np.floating[Any])
assert_type(lp.next_up(x, "float16"), Array)
assert_type(lp.sum(x, "bfloat16"), np.floating[Any])
assert_type(lp.sum(x, lp.Accumulator("float16", order="pairwise"), keepdims=True), Array)
assert_type(lp.measure(x, "float16"), lp.Measurement)
assert_type(lp.advise(x, "float16", tolerance=1e-3), lp.Advice)
assert_type(lp.compare({"x": x}, ["float16"]), lp.Comparison)

half = lp.Arithmetic("float16", rounding="RU", overflow="saturate_finite")
assert_type(half.add(1, 2.0), np.floating[Any])
assert_type(half.add(x, 1), Array)
assert_type(half.exp(np.float64(1)), np.floating[Any])
assert_type(half.sqrt(x, out=x), Array)
assert_type(half.fma(1, 2, 3), np.floating[Any])
assert_type(half.fma(x, 2, 3), Array)
assert_type(half.fmt, lp.Format)
print(float(lp.cast(0.1, "bfloat16")) + float(half.power(2, 3)), half.divide(x, 3).shape)


def refused() -> None:
    # Words that no mode has are refused: a checker that finds nothing wrong fails the test.
    lp.round_to(x, "bfloat16", rounding="nonsense")  # type: ignore[call-overload]
    lp.encode(x, "bfloat16", overflow="clip")  # type: ignore[call-overload]
    lp.cast(x, "bfloat16", rounding="nearest")  # type: ignore[call-overload]
    lp.measure(x, "bfloat16", rounding="nonsense")  # type: ignore[call-overload]
    lp.inspect(0.1, rounding="nonsense")  # type: ignore[arg-type]
    lp.Arithmetic("bfloat16", rounding="nonsense")  # type: ignore[arg-type]
    lp.Accumulator("bfloat16", rounding="nonsense")  # type: ignore[arg-type]
    lp.Accumulator("bfloat16", order="backwards")  # type: ignore[arg-type]
    half.add("1", x, out=1)  # type: ignore[call-overload]

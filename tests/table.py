"""The table that the laws run over: formats, modes, policies, and the points where rounding turns.

A new format is tested by being listed here.
"""

from __future__ import annotations

import inspect
import itertools
from functools import cache, wraps
from typing import TYPE_CHECKING, Any

import numpy as np
import oracle
import pytest

import lowprec as lp
from lowprec import Format, Overflow, Rounding, Specials

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CUSTOM = [
    Format("e6m9", 6, 10),
    Format("e3m2", 3, 3),
    Format("e2m1", 2, 2),
    Format("e4m3_bias20", 4, 4, bias=20),
    Format("e5m2_bias-3", 5, 3, bias=-3),
    Format("e5m6fnuz_bias40", 5, 7, Specials.FNUZ, bias=40),
    Format("float16_no_subnormals", 5, 11, subnormals=False),
    Format("bfloat16_no_subnormals", 8, 8, subnormals=False),
    Format("float8_e4m3fn_no_subnormals", 4, 4, Specials.FN, subnormals=False),
    Format("float8_e4m3fnuz_no_subnormals", 4, 4, Specials.FNUZ, bias=8, subnormals=False),
    Format("unsigned_e4m4fn", 4, 5, Specials.FN, signed=False),
    Format("unsigned_e5m3", 5, 4, signed=False),
    Format("unsigned_e4m3_finite", 4, 4, Specials.FINITE, signed=False),
    Format("unsigned_e5m3_no_subnormals", 5, 4, signed=False, subnormals=False),
    Format("e4m0fn", 4, 1, Specials.FN),
    Format("e3m0_finite", 3, 1, Specials.FINITE),
    Format("e4m0fnuz", 4, 1, Specials.FNUZ),
    Format("unsigned_e5m0_finite", 5, 1, Specials.FINITE, signed=False),
    Format("e8m7_bias120", 8, 8, bias=120),
    Format("e10m5", 10, 6),
    Format("e11m4", 11, 5),
    Format("e8m19", 8, 20),
    Format("e10m20", 10, 21),
    Format("e11m51_no_subnormals", 11, 52, subnormals=False),
    lp.get_format("p3109_k8p3se"),
    lp.get_format("p3109_k8p1ue"),
    lp.get_format("p3109_k7p6se"),
    Format("e1m2_finite", 1, 3, Specials.FINITE),
]
FORMATS: list[Format] = [*lp.named_formats().values(), *CUSTOM]
LISTED = [fmt for fmt in FORMATS if fmt.bits <= 19]  # the oracle's table holds every value
WIDE = [fmt for fmt in FORMATS if fmt.bits > 19]
SMALL = [fmt for fmt in FORMATS if fmt.bits <= 16]

MODES = [mode.value for mode in Rounding]
DETERMINISTIC = [mode.value for mode in Rounding if not mode.is_stochastic]
#: the length of arrays of which two threads take a part each
SHARED = 2_100_001
STOCHASTIC = [mode.value for mode in Rounding if mode.is_stochastic]
POLICIES = [policy.value for policy in Overflow]


def policies(fmt: Format) -> list[str]:
    """Return the overflow policies that a format can follow."""
    if fmt.has_infinity or fmt.has_nan:
        return POLICIES
    return [policy for policy in POLICIES if policy != "infinite"]


FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)


def sources(fmt: Format) -> list[np.dtype[Any]]:
    """Return the dtypes whose `round_to` can give every value of the format."""
    with np.errstate(over="ignore", under="ignore"):
        ends = np.array([fmt.max, fmt.smallest_subnormal])
        held = fmt.precision <= 24 and (ends.astype(np.float32) == ends).all()
    return [FLOAT32, FLOAT64] if held else [FLOAT64]


PAIRS = [(fmt, dtype) for fmt in FORMATS for dtype in sources(fmt)]
# Every kind of format compiles its own kernels. Rare kinds are encoded in some modes only (but
# rounded in all), or compilation would take most of the time.
RARE = [f for f in FORMATS if not (f.signed and f.has_negative_zero and f.subnormals)]
SOME = ["ties_to_even", "toward_negative", "stochastic"]
CODED = [(fmt, mode) for fmt in FORMATS for mode in MODES if fmt not in RARE or mode in SOME]
CODED_DETERMINISTIC = [(fmt, mode) for fmt, mode in CODED if mode in DETERMINISTIC]
SMALL_PAIRS = [(fmt, dtype) for fmt, dtype in PAIRS if fmt.bits <= 16]


def coded_modes(fmt: Format) -> list[str]:
    """Return the modes in which a format is encoded here, see `CODED`."""
    return [mode for coded, mode in CODED if coded == fmt]


def coded_deterministic_modes(fmt: Format) -> list[str]:
    """Return those of `coded_modes` that draw nothing."""
    return [mode for mode in coded_modes(fmt) if mode in DETERMINISTIC]


def each(argument: str, values: Sequence[Any] | Callable[[Format], Sequence[Any]]) -> Any:
    """Run a test for each value of an argument, in one item: thousands of items take their time.

    `values` may be a function of the test's `fmt`. A failure is told with the value.
    """

    def looped(test: Callable[..., None]) -> Callable[..., None]:
        @wraps(test)
        def run(**others: Any) -> None:
            for value in values(others["fmt"]) if callable(values) else values:
                try:
                    test(**others, **{argument: value})
                except BaseException as error:
                    error.add_note(f"with {argument}={value!r}")
                    raise

        signature = inspect.signature(test)
        kept = [one for one in signature.parameters.values() if one.name != argument]
        run.__signature__ = signature.replace(parameters=kept)  # type: ignore[attr-defined]
        return run

    return looped


def covering(first: Sequence[Any], second: Sequence[Any]) -> list[Any]:
    """Return all pairs as parameters of a test; all but a few are slow.

    What is left occurs with the first of the other list, and in turn with the others. Each pair of
    a format and a mode compiles kernels of its own, which takes longer than to run them.
    """
    pairs = []
    for (i, a), (j, b) in itertools.product(enumerate(first), enumerate(second)):
        occurs = j == 0 or i % len(second) == j or j % len(first) == i
        pairs.append(pytest.param(a, b, marks=() if occurs else pytest.mark.slow))
    return pairs


def name(value: Any) -> str | None:
    """Name a format or a dtype in a test's identifier."""
    if isinstance(value, Format):
        return value.name
    return value.name if isinstance(value, np.dtype) else None


@cache
def turning_points(fmt: Format, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Return every value and midpoint, what lies one source ulp to either side, and the ends.

    All are numbers of `dtype` of both signs, in order, and infinities; no NaN. Numbers that the
    format gives as NaN although it has none are left out.
    """
    values, middles, *_ = oracle.table(fmt)
    ends = [0.0, np.inf, np.finfo(dtype).max, np.finfo(dtype).smallest_subnormal, 1.0, 1e30]
    with np.errstate(over="ignore", under="ignore"):
        points = np.concatenate([values, middles, ends]).astype(dtype)
        up, down = np.nextafter(points, dtype.type(np.inf)), np.nextafter(points, dtype.type(0))
    points = np.unique(np.concatenate([points, up, down]))
    points = np.concatenate([-points[::-1], points])
    return admissible(points, fmt)


def admissible(x: np.ndarray[Any, Any], fmt: Format) -> np.ndarray[Any, Any]:
    """Leave out what becomes NaN in a format that has none (a ValueError)."""
    if fmt.has_nan:
        return x
    x = x[~np.isnan(x)]
    if not fmt.signed:
        x = x[x >= 0]
    return x if fmt.has_zero else x[x != 0]


@cache
def points(fmt: Format, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Return a few thousand numbers of `dtype`, in order: turning points and random ones.

    Read-only, for all tests of a format share it.
    """
    rng = np.random.default_rng(fmt.bits)
    parts = [_spread(fmt, dtype, rng)]
    if fmt.bits <= 19:
        turns = turning_points(fmt, dtype)
        edges = [turns[:100], turns[-100:], turns[abs(turns) <= 64 * fmt.smallest_subnormal][:400]]
        parts += [*edges, rng.choice(turns, min(len(turns), 1500), replace=False)]
    x = admissible(np.sort(np.concatenate(parts)), fmt)
    x.flags.writeable = False
    return x


def _spread(fmt: Format, dtype: np.dtype[Any], rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """Draw numbers over the format's range, a little beyond it, and at its ends."""
    exponents = rng.integers(fmt.emin - fmt.precision - 1, fmt.emax + 3, 800)
    ends = [fmt.max, fmt.smallest_normal, fmt.smallest_subnormal, np.inf, 0.0]
    with np.errstate(over="ignore", under="ignore"):
        x = np.ldexp(rng.uniform(1, 2, 800), exponents)
        x = np.concatenate([x, ends, np.multiply(ends, 1 + 2.0**-fmt.precision)])
        return np.concatenate([x, -x]).astype(dtype)


def same(a: Any, b: Any) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return where two float arrays agree: equal with the same sign of zero, or both NaN."""
    a, b = np.asarray(a), np.asarray(b)
    return ((a == b) & (np.signbit(a) == np.signbit(b))) | (np.isnan(a) & np.isnan(b))


def assert_same(actual: Any, expected: Any, x: Any = None) -> None:
    """Fail with the first disagreement in words, in hexadecimal."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"shape {actual.shape} instead of {expected.shape}"
    wrong = np.flatnonzero(~same(actual, expected))
    if wrong.size:
        i = wrong[0]
        given, got, want = (
            float(np.asarray(v).flat[i]).hex() if v is not None else "?"
            for v in (x, actual, expected)
        )
        raise AssertionError(
            f"{wrong.size} of {actual.size} differ; the first, at {i}: {given} -> {got}, not {want}"
        )

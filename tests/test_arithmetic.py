"""The laws of arithmetic: every result is the exact one, rounded once."""

from __future__ import annotations

import contextlib
import itertools
import math
import pickle

import ml_dtypes
import numba
import numpy as np
import oracle
import pytest
from exact_arithmetic import EVENTS, flushed, outcome
from hypothesis import example, given, settings
from hypothesis import strategies as st
from processor import STATES
from processor import state as processor_in
from softfloat_peer import ExceptionFlag, RoundingMode, softfloat
from table import (
    DETERMINISTIC,
    FORMATS,
    POLICIES,
    RARE,
    SHARED,
    STOCHASTIC,
    assert_same,
    covering,
    name,
    policies,
)

import lowprec as lp
from lowprec import Format
from lowprec.arithmetic import Arithmetic

ARITY = {
    "add": 2,
    "subtract": 2,
    "multiply": 2,
    "divide": 2,
    "sqrt": 1,
    "fma": 3,
    "remainder": 2,
    "minimum": 2,
    "maximum": 2,
    "floor_divide": 2,
    "mod": 2,
    "square": 1,
    "abs": 1,
    "negative": 1,
}
SUPPORTED = [f for f in FORMATS if f.precision <= 24 and f.exponent_bits <= 9]
FEW = [lp.bfloat16, lp.float8_e4m3fn]  # many formats share their kernels
OTHERS = [fmt for fmt in SUPPORTED if fmt not in FEW]


def edges(fmt: Format) -> list[float]:
    """Return the values of a format where operations turn, of both signs."""
    values = [0.0, 1.0, 1 + fmt.eps, 1.5, 3.0, fmt.smallest_subnormal, fmt.smallest_normal]
    values += [3 * fmt.smallest_subnormal, fmt.smallest_normal * (1 - fmt.eps / 2)]
    values += [fmt.max, fmt.max / 2, fmt.max * (1 - fmt.eps), math.sqrt(fmt.max), math.inf]
    values += [math.sqrt(fmt.smallest_normal), 2 / fmt.max, math.nan]
    rounded = {
        oracle.round_exactly(s * v, fmt, overflow="saturate") for v in values for s in (1, -1)
    }
    return sorted(
        (v for v in rounded if not math.isnan(v)), key=lambda v: (v, math.copysign(1, v))
    ) + ([math.nan] if fmt.has_nan else [])


def operands_of(fmt: Format, arity: int, count: int) -> list[np.ndarray]:
    """Return arrays of values: pairs of edges first, then random values of the format."""
    rng = np.random.default_rng([fmt.bits, arity])
    points = np.array(edges(fmt))
    codes = rng.integers(0, 1 << fmt.bits, (arity, count)).astype(fmt.code_dtype)
    near = rng.integers(0, 1 << fmt.bits, count)
    codes[-1, ::2] = (near[::2] & ~0xF) | (codes[0, ::2] & 0xF)
    values = lp.decode(codes, fmt, dtype="float64")
    chosen = rng.choice(points, (arity, count))
    mixed = np.where(rng.random((arity, count)) < 0.5, values, chosen)
    return list(mixed)


def results_dtype(fmt: Format) -> type:
    return np.float32 if fmt.fits(lp.float32) else np.float64


def check(fmt, operation, rounding, overflow="ieee", count=250, **switches):
    """Compare values and events with the fractions; leave out what the format has no NaN for."""
    operands = operands_of(fmt, ARITY[operation], count)
    daz = switches.get("denormals_are_zero", False)
    taken = [
        tuple(
            flushed(v, fmt) if daz else oracle.round_exactly(v, fmt, rounding, overflow)
            for v in row
        )
        for row in zip(*(x.tolist() for x in operands), strict=True)
    ]
    ftz = switches.get("flush_to_zero", False)
    tininess = switches.get("tininess", "before")
    outcomes = [outcome(operation, row, fmt, rounding, overflow, ftz, tininess) for row in taken]
    keeps = np.array([fmt.has_nan or not math.isnan(o.value) for o in outcomes])
    operands = [x[keeps].astype(results_dtype(fmt)) for x in operands]
    arithmetic = Arithmetic(fmt, rounding=rounding, overflow=overflow, **switches)
    actual = getattr(arithmetic, operation)(*operands)
    wanted = [o for o, keep in zip(outcomes, keeps, strict=True) if keep]
    assert actual.dtype == results_dtype(fmt)
    assert_same(actual, [o.value for o in wanted], operands[-1])
    for event in EVENTS:
        expected = sum(event in o.events for o in wanted)
        assert getattr(arithmetic.flags[operation], event) == expected, event


# Against fractions ---------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["add", "multiply", "divide", "sqrt", "fma"])
@pytest.mark.parametrize("rounding", DETERMINISTIC)
def test_the_exact_result_is_rounded_once(operation, rounding):
    for fmt in FEW:
        check(fmt, operation, rounding)


@pytest.mark.parametrize(
    "operation",
    ["subtract", "remainder", "minimum", "maximum", "floor_divide", "mod", "square", "negative"],
)
@pytest.mark.parametrize("rounding", ["ties_to_even", "toward_negative"])
def test_so_are_the_results_that_are_exact_or_like_those_of_others(operation, rounding):
    for fmt in FEW:
        check(fmt, operation, rounding)


SOME = ["add", "divide", "fma", "floor_divide", "mod", "negative"]
USUAL = [fmt for fmt in OTHERS if fmt not in RARE]


@pytest.mark.parametrize(
    ("fmt", "operation"),
    [*itertools.product(USUAL, SOME), *covering([f for f in OTHERS if f in RARE], SOME)],
    ids=name,
)
def test_the_exact_result_is_rounded_once_in_every_format(fmt, operation):
    check(fmt, operation, "ties_to_even", count=200)


@pytest.mark.parametrize("operation", ARITY)
def test_float32_is_rounded_once_downwards(operation):
    check(lp.float32, operation, "toward_negative", count=500)


@pytest.mark.parametrize("overflow", POLICIES)
@pytest.mark.parametrize("rounding", ["ties_to_even", "toward_positive"])
@pytest.mark.parametrize("operation", ["multiply", "divide"])
def test_overflow_policies_are_those_of_conversion(operation, rounding, overflow):
    for fmt in FEW:
        check(fmt, operation, rounding, overflow)


@pytest.mark.parametrize("operation", ["multiply", "fma", "minimum", "mod", "abs"])
@pytest.mark.parametrize("switch", [{"flush_to_zero": True}, {"denormals_are_zero": True}])
def test_tiny_numbers_become_zero_where_asked(operation, switch):
    for fmt in FEW:
        check(fmt, operation, "toward_positive", **switch)


@pytest.mark.parametrize(
    ("rounding", "operation"), covering(DETERMINISTIC, ["multiply", "divide", "fma"])
)
def test_tininess_after_rounding_decides_about_underflow_and_flushing(operation, rounding):
    for fmt in (lp.float16, lp.bfloat16, lp.float8_e4m3fn, lp.get_format("p3109_k7p1se")):
        check(fmt, operation, rounding, count=400, tininess="after")
    check(lp.float16, operation, rounding, tininess="after", flush_to_zero=True)


def test_tininess_is_before_or_after():
    least = float(lp.float16.smallest_normal)
    below = (1 + 2.0**-10, least * (1 - 2.0**-10))  # their product rounds up to the least normal
    for tininess, count in {"before": 1, "after": 0}.items():
        arithmetic = Arithmetic("float16", tininess=tininess)
        assert arithmetic.multiply(*below) == least
        assert arithmetic.tininess == tininess
        assert (arithmetic.flags.underflow, arithmetic.flags.inexact) == (count, 1)
        flushing = Arithmetic("float16", tininess=tininess, flush_to_zero=True)
        assert flushing.multiply(*below) == (0 if count else least)
    assert "tininess='after'" in repr(arithmetic)
    with pytest.raises(ValueError, match=r"'during'.*before, after"):
        Arithmetic("float16", tininess="during")


@pytest.mark.parametrize("rounding", STOCHASTIC)
def test_stochastic_tininess_after_rounding_is_drawn_with_the_result(rounding):
    # least·(1 - 2**-12) lies a quarter of a subnormal step below the least normal number, which is
    # half a step if the exponent has no lower end: one draw of two reaches it there, where three
    # of four reach it in the format itself
    fmt, size = lp.float16, 20_000
    a, b = np.full(size, -(2.0**-13), np.float32), 2.0**-13  # their product is -least·2**-12
    for tininess, expected in {"before": 1.0, "after": 0.5}.items():
        arithmetic = Arithmetic(fmt, rounding=rounding, rng=0, tininess=tininess)
        arithmetic.fma(a, b, fmt.smallest_normal)
        underflows = arithmetic.flags.underflow / size
        assert abs(underflows - expected) < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("fmt", SUPPORTED, ids=name)
@pytest.mark.parametrize("operation", ARITY)
@pytest.mark.parametrize("rounding", DETERMINISTIC)
def test_the_exact_result_is_rounded_once_everywhere(fmt, operation, rounding):
    for overflow in policies(fmt):
        check(fmt, operation, rounding, overflow, count=400)
    switches = {"flush_to_zero": fmt.has_zero, "denormals_are_zero": True}
    check(fmt, operation, rounding, count=400, **switches)


@pytest.mark.parametrize("operation", ["floor_divide", "mod"])
def test_special_quotients_are_numpys(operation):
    values = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0, 1.0, -1.0, 2.5, -7.0, 1e30, -1e-30])
    a, b = (x.ravel().astype(np.float32) for x in np.meshgrid(values, values))
    with np.errstate(all="ignore"):
        expected = getattr(np, operation)(a, b)
    expected[np.isnan(expected)] = np.nan
    ordinary = (abs(a) < 10) & (abs(b) < 10) & (abs(a) > 1e-3) & (abs(b) > 1e-3)
    chosen = ordinary | ~(np.isfinite(a) & np.isfinite(b) & (a != 0) & (b != 0))
    actual = getattr(Arithmetic("float32"), operation)(a, b)
    assert_same(actual[chosen], expected[chosen])


@pytest.mark.parametrize("rounding", ["ties_to_even", "toward_negative", "to_odd"])
def test_far_quotients_are_floored_before_they_are_rounded(rounding):
    rng = np.random.default_rng(12)
    a, b = np.float64(np.float32(rng.uniform(1, 2, (2, 2000)))) * rng.choice([1, -1], (2, 2000))
    a *= 2.0 ** rng.integers(20, 90, 2000)  # quotients about where numbers of 53 bits are odd
    arithmetic = Arithmetic("float32", rounding=rounding)
    for operation in ("floor_divide", "mod"):
        actual = getattr(arithmetic, operation)(a, b)
        expected = [outcome(operation, row, lp.float32, rounding).value for row in zip(a, b)]  # noqa: B905
        assert_same(actual, expected)


FINITE_FLOATS = st.floats(allow_nan=False, width=32)


@settings(max_examples=40)
@given(st.sampled_from(list(ARITY)), st.lists(FINITE_FLOATS, min_size=3, max_size=3))
@example("add", [1.0, 2.0**-100, 0.0])
@example("fma", [1 + 2.0**-7, 1 + 2.0**-7, 2.0**-120])
@example("divide", [2.0**-126, 3.0, 0.0])
@example("remainder", [3.0e38, 1.4e-45, 0.0])
def test_any_float32_operands_are_rounded_to_bfloat16_first(operation, numbers):
    arithmetic = Arithmetic("bfloat16")
    operands = numbers[: ARITY[operation]]
    values = tuple(oracle.round_exactly(v, lp.bfloat16) for v in operands)
    expected = outcome(operation, values, lp.bfloat16)
    assert_same(getattr(arithmetic, operation)(*operands), expected.value)
    happened = {event for event in EVENTS if getattr(arithmetic.flags, event)}
    assert happened == expected.events


@pytest.mark.parametrize("fmt", [lp.float32, lp.bfloat16], ids=name)
def test_remainders_turn_at_the_right_quotients(fmt):
    """A·2**k / B closer to n + 1/2 than any other, for quotients that float64 tells and others."""
    rng = np.random.default_rng(9)
    halves = rng.integers(2 ** (fmt.precision - 2), 2 ** (fmt.precision - 1), 50).tolist()
    a, b = [], []
    for k in range(60):
        for odd in (2 * half + 1 for half in halves):
            numerator = pow(2, -k - 1, odd)  # 2·A·2**k = 1 modulo B
            a += [math.ldexp(numerator, k), math.ldexp(odd - numerator, k)]
            b += [odd, -odd]
    expected = [math.remainder(x, y) for x, y in zip(a, b, strict=True)]
    a, b = (np.array(x, np.float32) for x in (a, b))
    assert_same(Arithmetic(fmt).remainder(a, b), expected, a)


# All pairs -----------------------------------------------------------------------------------

FP8 = [lp.float8_e4m3fn, lp.float8_e5m2, lp.float8_e4m3, lp.float8_e3m4, lp.float8_e4m3fnuz]
FLOAT64 = {"add": np.add, "multiply": np.multiply, "divide": np.divide}


@pytest.mark.parametrize("operation", FLOAT64)
@pytest.mark.parametrize("rounding", DETERMINISTIC)
def test_all_pairs_of_8_bit_formats(operation, rounding):
    """Sums and products are exact in float64; quotients are far from where rounding turns."""
    for fmt in FP8 if rounding == "ties_to_even" else FP8[:2]:
        x = lp.decode(np.arange(256), fmt)
        a, b = np.meshgrid(x, x)
        with np.errstate(all="ignore"):
            wide = FLOAT64[operation](a, b, dtype=np.float64)
        if operation == "add" and rounding == "toward_negative":
            wide = np.where((wide == 0) & (np.signbit(a) != np.signbit(b)), -0.0, wide)
        exact, places = np.unique(wide.view(np.int64), return_inverse=True)
        expected = oracle.round_to(exact.view(np.float64), fmt, rounding)[places].reshape(
            wide.shape
        )
        compute = getattr(Arithmetic(fmt, rounding=rounding), operation)
        actual = np.concatenate([compute(a[:128], b[:128]), compute(a[128:], b[128:])])
        assert_same(actual, expected, wide)


# Peers ---------------------------------------------------------------------------------------

SOFTFLOAT_MODES = {
    "ties_to_even": RoundingMode.NEAR_EVEN,
    "ties_to_away": RoundingMode.NEAR_MAX_MAG,
    "toward_zero": RoundingMode.MIN_MAG,
    "toward_negative": RoundingMode.MIN,
    "toward_positive": RoundingMode.MAX,
}
SOFTFLOAT = {
    "add": softfloat.f16_add,
    "subtract": softfloat.f16_sub,
    "multiply": softfloat.f16_mul,
    "divide": softfloat.f16_div,
    "sqrt": softfloat.f16_sqrt,
    "fma": softfloat.f16_mul_add,
    "remainder": softfloat.f16_rem,
}
SOFTFLOAT_FLAGS = {
    "invalid": ExceptionFlag.INVALID,
    "divide_by_zero": ExceptionFlag.INFINITE,
    "overflow": ExceptionFlag.OVERFLOW,
    "underflow": ExceptionFlag.UNDERFLOW,
    "inexact": ExceptionFlag.INEXACT,
}


@pytest.fixture
def softfloat_state():
    """Give SoftFloat our definition of tiny, and put its state back afterwards."""
    softfloat.set_tininess_mode(softfloat.TininessMode.BEFORE_ROUNDING)
    yield
    softfloat.set_rounding_mode(RoundingMode.NEAR_EVEN)
    softfloat.set_exception_flags(0)


@pytest.mark.parametrize("rounding", SOFTFLOAT_MODES)
@pytest.mark.parametrize("operation", SOFTFLOAT)
def test_softfloat_computes_float16_alike(operation, rounding, softfloat_state):
    arity = ARITY[operation]
    operands = [x.astype(np.float32) for x in operands_of(lp.float16, arity, 5000)]
    if operation == "fma":  # for 0·inf + NaN, SoftFloat signals invalid: 7.2 c leaves it open
        operands = [np.where(np.isnan(x), np.float32(1), x) for x in operands]
    softfloat.set_rounding_mode(SOFTFLOAT_MODES[rounding])
    theirs, events = [], []
    function = SOFTFLOAT[operation]
    for row in zip(*(map(softfloat.Float16.from_float, x.tolist()) for x in operands), strict=True):
        softfloat.set_exception_flags(0)
        theirs.append(function(*row).to_float())
        events.append(int(softfloat.get_exception_flags()))
    arithmetic = Arithmetic("float16", rounding=rounding)
    assert_same(getattr(arithmetic, operation)(*operands), theirs, operands[0])
    for event, flag in SOFTFLOAT_FLAGS.items():
        assert getattr(arithmetic.flags, event) == np.count_nonzero(np.array(events) & flag), event


@pytest.mark.parametrize("operation", ["add", "subtract", "multiply", "divide"])
@pytest.mark.parametrize("fmt", [lp.float16, lp.bfloat16, lp.float8_e5m2], ids=name)
def test_ml_dtypes_computes_alike_where_float32_loses_nothing(fmt, operation):
    """With twice the precision and two bits more, rounding twice is innocuous for these."""
    a, b = (x.astype(np.float32) for x in operands_of(fmt, 2, 20000))
    ours = getattr(Arithmetic(fmt), operation)(a, b)
    with np.errstate(all="ignore"):
        theirs = getattr(np, operation)(a.astype(fmt.dtype), b.astype(fmt.dtype))
    normal = np.abs(ours) >= fmt.smallest_normal
    assert_same(ours[normal], theirs.astype(np.float32)[normal])


def test_bfloat16_products_below_the_subnormals_of_float32_are_rounded_once():
    """Float32 gives 0 for 2**-150, and could not tell that it is more."""
    a, b = np.float32(2.0**-70), np.float32(2.0**-80)
    assert a * b == 0
    up = Arithmetic("bfloat16", rounding="toward_positive")
    assert up.multiply(a, b) == lp.bfloat16.smallest_subnormal
    assert up.multiply(-a, b) == 0
    assert up.flags["multiply"] == (0, 0, 0, 2, 2)


# Cases worth a name --------------------------------------------------------------------------


def test_the_least_addend_counts_in_directed_modes():
    up = Arithmetic("bfloat16", rounding="toward_positive")
    assert up.add(1.0, 2.0**-100) == 1 + lp.bfloat16.eps
    assert up.subtract(1.0, 2.0**-100) == 1
    down = Arithmetic("bfloat16", rounding="toward_negative")
    assert down.subtract(1.0, 2.0**-100) == 1 - lp.bfloat16.eps / 2


@pytest.mark.parametrize("fmt", SUPPORTED, ids=name)
def test_zeros_of_different_signs_add_up_to_the_zero_of_the_mode(fmt):
    if not fmt.has_zero or not fmt.signed:
        return
    for rounding in ("ties_to_even", "toward_negative"):
        arithmetic, one = Arithmetic(fmt, rounding=rounding), fmt.max
        is_negative = rounding == "toward_negative" and fmt.has_negative_zero
        results = [arithmetic.add(one, -one)]
        if fmt not in RARE:  # whose kernels are compiled for no other test
            results.append(arithmetic.fma(one, 0.0, -0.0))
        for result in results:
            assert result == 0
            assert bool(np.signbit(result)) == is_negative


def test_fma_in_float32_and_narrowed_is_not_the_fma():
    """3·683 lies halfway between 2048 and 2050; what decides is lost in float32's 24 bits."""
    a, b, c = np.float32(3), np.float32(683), np.float32(2.0**-14)
    assert np.float16(np.float64(a) * b + c) == 2050
    assert np.float16(np.float32(np.float64(a) * b + c)) == 2048
    assert Arithmetic("float16").fma(a, b, c) == 2050
    assert Arithmetic("float16", rounding="toward_zero").fma(a, b, -c) == 2048


def test_a_format_without_subnormals_adds_numbers_finer_than_its_smallest():
    """2**-17 is left out of float32's sum, which then is a tie; the smallest number is 2**-6."""
    fmt = Format("e4m11 without subnormals", 4, 12, subnormals=False)
    a, b = np.float32(128 + 2.0**-4), np.float32(2.0**-5 - 2.0**-17)
    assert a + b == 128 + 2.0**-4 + 2.0**-5
    assert Arithmetic(fmt).add(a, b) == a
    assert Arithmetic(fmt).subtract(-a, b) == -a


@pytest.mark.parametrize("operation", ["divide", "reciprocal"])
def test_a_format_without_negative_zero_divides_by_its_one_zero(operation):
    fmt = lp.float8_e4m3fnuz
    arithmetic = Arithmetic(fmt, overflow="saturate", denormals_are_zero=True)
    ones = [1.0] if operation == "divide" else []
    for tiny in (fmt.smallest_subnormal, -fmt.smallest_subnormal, -fmt.smallest_subnormal / 4):
        assert getattr(arithmetic, operation)(*ones, tiny) == fmt.max


@pytest.mark.parametrize("operation", ["add", "subtract", "multiply", "divide"])
def test_results_are_the_same_whether_events_are_counted_or_not(operation):
    """Without counting, float16 may be left to the processor; NumPy goes through float32."""
    codes = np.arange(1 << 16, dtype=np.uint16)
    others = np.random.default_rng(0).integers(0, 1 << 32, 1 << 16, dtype=np.uint32)
    for fmt in (lp.float16, lp.bfloat16):
        values = lp.decode(codes, fmt)
        pairs = [(values, np.roll(values, k)) for k in (0, 1, 511, 1 << 10, 10007, 1 << 15)]
        pairs += [(values, others.view(np.float32)), (others.view(np.float32)[:77], values[:77])]
        for a, b in pairs:
            plain = getattr(Arithmetic(fmt, flags=False), operation)(a, b)
            assert_same(plain, getattr(Arithmetic(fmt), operation)(a, b), a)
            with np.errstate(all="ignore"):
                x, y = (v.astype(fmt.dtype) for v in (a, b))
                if fmt == lp.float16:
                    assert_same(plain, getattr(np, operation)(x, y).astype(np.float32), a)


# NaN -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fmt", [lp.bfloat16, lp.float16, lp.float8_e4m3fn, lp.float8_e4m3fnuz], ids=name
)
def test_nan_has_one_pattern_and_no_sign(fmt):
    arithmetic = Arithmetic(fmt)
    nan = np.array([np.nan, -np.nan], np.float32)
    results = [arithmetic.add(nan, 1), arithmetic.subtract(nan, nan), arithmetic.sqrt([-1.0, -2])]
    results += [arithmetic.minimum(nan, 1), arithmetic.divide([0, -0.0], 0), arithmetic.sqrt(nan)]
    results += [arithmetic.power(nan, 2), arithmetic.exp(nan), arithmetic.hypot(nan, nan)]
    for result in results:
        assert (result.view(np.uint32) == 0x7FC00000).all()


@pytest.mark.parametrize("fmt", [lp.float4_e2m1fn, lp.float6_e3m2fn, lp.float6_e2m3fn], ids=name)
def test_a_format_without_nan_refuses_before_it_writes(fmt):
    arithmetic = Arithmetic(fmt)
    out = np.full((2, 2), 7, np.float32)
    with pytest.raises(ValueError, match=r"divide has 1 results of 4 .* index \(1, 0\)"):
        arithmetic.divide([[1, 2], [0, 3]], [[1, 1], [0, 0]], out=out)
    assert (out == 7).all()
    assert not arithmetic.flags
    with pytest.raises(ValueError, match="are NaN"):
        arithmetic.add([1, math.nan], 1, out=out[0])
    assert (out == 7).all()
    assert arithmetic.divide(1.0, 0.0, out=out[0, :1].reshape(())) == fmt.max
    assert arithmetic.flags.divide_by_zero == 1


def test_what_an_unsigned_format_cannot_hold_is_nan_and_invalid():
    scale = Arithmetic("float8_e8m0fnu")
    assert math.isnan(scale.subtract(1.0, 2.0))
    assert math.isnan(scale.subtract(1.0, 1.0))
    assert scale.flags["subtract"].invalid == 2
    assert scale.flags["subtract"].inexact == 0


def test_a_tiny_number_without_a_code_is_nan_though_others_become_zero():
    fmt = Format("e5m10 unsigned", 5, 11, signed=False)
    arithmetic, least = Arithmetic(fmt, flush_to_zero=True), fmt.smallest_subnormal
    difference = arithmetic.subtract([least, 2 * least], [2 * least, least])
    np.testing.assert_array_equal(difference, [math.nan, 0])
    assert arithmetic.flags["subtract"] == (1, 0, 0, 1, 1)


# Stochastic ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rounding", STOCHASTIC)
def test_stochastic_results_are_neighbours_with_the_right_frequency(rounding):
    n = 40_000
    arithmetic = Arithmetic("bfloat16", rounding=rounding, rng=5)
    results = arithmetic.add(np.full(n, 1.0), 2.0**-9)
    share = np.mean(results == 1 + 2.0**-7)
    expected = 0.25 if rounding == "stochastic" else 0.5
    assert set(np.unique(results).tolist()) == {1.0, 1 + 2.0**-7}
    assert abs(share - expected) < 5 * math.sqrt(expected * (1 - expected) / n)
    assert arithmetic.flags.inexact == n


@pytest.mark.parametrize("operation", ["add", "fma"])
def test_stochastic_results_lie_between_the_directed_ones(operation):
    for fmt in (lp.bfloat16, lp.float16, lp.float8_e4m3fn):
        operands = operands_of(fmt, ARITY[operation], 2000)
        arithmetic = Arithmetic(fmt, rounding="stochastic", rng=1)
        result = getattr(arithmetic, operation)(*operands)
        bounds = [
            getattr(Arithmetic(fmt, rounding=mode), operation)(*operands)
            for mode in ("toward_negative", "toward_positive")
        ]
        same = [(result == bound) | (np.isnan(result) & np.isnan(bound)) for bound in bounds]
        assert (same[0] | same[1]).all()


def test_stochastic_bits_depend_on_key_and_index_alone():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 100, 300)).astype(np.float32)
    results = [
        Arithmetic("bfloat16", rounding="SR", rng=9).add(a, b),
        Arithmetic("bfloat16", rounding="SR", rng=9).add(a, np.stack([b, b], axis=-1)[..., 0]),
        Arithmetic("bfloat16", rounding="SR", rng=9).add(np.asfortranarray(a), b),
        Arithmetic("bfloat16", rounding="SR", rng=9).add(a, b, out=a.copy()),
    ]
    for result in results[1:]:
        assert_same(result, results[0])
    arithmetic = Arithmetic("bfloat16", rounding="SR", rng=9)
    first, second = arithmetic.add(a, b), arithmetic.add(a, b)
    assert_same(first, results[0])
    assert (first != second).any()


def test_a_broadcast_operand_is_converted_once():
    arithmetic = Arithmetic("bfloat16", rounding="stochastic_equal", rng=3)
    results = arithmetic.add(np.zeros(1000, np.float32), 1 + 2.0**-9)
    assert len(np.unique(results)) == 1


# Arrays --------------------------------------------------------------------------------------


def test_operands_broadcast_as_numpys_do():
    a = np.arange(6, dtype=np.float32).reshape(2, 1, 3)
    b = np.arange(4).reshape(4, 1)
    arithmetic = Arithmetic("float16")
    assert_same(arithmetic.add(a, b), (a + b).astype(np.float32))
    assert arithmetic.add(np.zeros((0, 3)), 1).shape == (0, 3)
    with pytest.raises(ValueError, match="broadcast"):
        arithmetic.add(np.zeros(3), np.zeros(4))


def test_scalars_give_scalars_and_arrays_arrays():
    arithmetic = Arithmetic("bfloat16")
    assert type(arithmetic.add(1, 2.5)) is np.float32
    assert type(arithmetic.sqrt(np.float16(4))) is np.float32
    assert arithmetic.add(np.array(1.0), 2).shape == ()
    assert type(arithmetic.add([1.0], 2)) is np.ndarray


NUMBERS = [0.1, -3, 2**53 + 2, -0.0, np.float64(1 + 2.0**-9), np.float32(2.0**-140), True, math.nan]


@pytest.mark.parametrize("state", ["usual", *STATES])
def test_numbers_of_any_kind_give_the_same(state):
    arithmetic = Arithmetic("bfloat16")
    for a, b in itertools.product(NUMBERS, repeat=2):
        expected = arithmetic.multiply(np.array([float(a)]), np.array([float(b)]))
        before = arithmetic.flags["multiply"]
        for _ in range(2):  # the second call finds what the first one made
            with contextlib.nullcontext() if state == "usual" else processor_in(state):
                found = arithmetic.multiply(a, b)
            assert_same(np.array([found]), expected)
        assert arithmetic.flags["multiply"].inexact - before.inexact in (0, 2)


@pytest.mark.parametrize("size", [5, 20_000])  # above one block
def test_numbers_beside_arrays_are_arrays_full_of_them(size):
    x = np.linspace(-3, 5, size, dtype=np.float32)
    arithmetic = Arithmetic("bfloat16")
    for number in [*NUMBERS, 1 + 2.0**-8 + 2.0**-40, np.array(1 / 3)]:
        full = np.full(size, float(number))
        assert_same(arithmetic.divide(x, number), arithmetic.divide(x, full))
        assert_same(arithmetic.divide(number, x), arithmetic.divide(full, x))


@pytest.mark.parametrize(
    "dtype",
    [np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, np.int8, np.int64, ">f4", ">f8"],
)
def test_operands_of_any_dtype_give_the_same(dtype):
    x = np.array([1, 2, 3, 4, 100, -7]).astype(dtype)
    arithmetic = Arithmetic("bfloat16")
    wide = x.astype(np.float64)
    assert_same(arithmetic.multiply(x, x[::-1]), arithmetic.multiply(wide, wide[::-1]))


def test_64_bit_integers_are_converted_once():
    big = np.array([2**62 + 2**54 + 1])
    assert Arithmetic("bfloat16").add(big, 0)[0] == 2.0**62 + 2.0**55


@pytest.mark.parametrize("fmt", ["bfloat16", Format("e9m3", 9, 4)], ids=str)
def test_out_may_be_an_operand_or_overlap_one(fmt):
    arithmetic = Arithmetic(fmt)
    memory = np.linspace(-3, 5, 501).astype(results_dtype(lp.get_format(fmt)))
    expected = arithmetic.subtract(memory[1:], memory[:-1])
    shifted = memory.copy()
    result = arithmetic.subtract(shifted[1:], shifted[:-1], out=shifted[1:])
    assert np.shares_memory(result, shifted)
    assert_same(result, expected)
    shifted = memory.copy()
    assert_same(arithmetic.subtract(shifted[1:], shifted[:-1], out=shifted[:-1]), expected)
    strided = np.zeros(1000, memory.dtype)
    assert_same(arithmetic.subtract(memory[1:], memory[:-1], out=strided[::2]), expected)
    assert not strided[1::2].any()
    bytes_ = memory.view(np.float32)  # narrower operands over the memory of the result
    wanted = arithmetic.add(bytes_[: memory.size].copy(), 1)
    assert_same(arithmetic.add(bytes_[: memory.size], 1, out=memory), wanted)


def test_out_is_checked():
    arithmetic = Arithmetic("bfloat16")
    with pytest.raises(ValueError, match="shape"):
        arithmetic.add([1.0, 2], 3, out=np.zeros(3, np.float32))
    with pytest.raises(TypeError, match="float32"):
        arithmetic.add([1.0, 2], 3, out=np.zeros(2))
    with pytest.raises(TypeError, match="list"):
        arithmetic.add([1.0, 2], 3, out=[0, 0])
    with pytest.raises(ValueError, match="read-only"):
        arithmetic.add([1.0, 2], 3, out=np.broadcast_to(np.float32(0), 2))


@pytest.mark.parametrize("rounding", ["ties_to_even", "stochastic"])
def test_results_do_not_depend_on_threads(rounding):
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(2, SHARED)).astype(np.float32)
    results, events = [], []
    before = numba.get_num_threads()
    try:
        for threads in {1, before}:
            numba.set_num_threads(threads)
            arithmetic = Arithmetic("bfloat16", rounding=rounding, rng=4)
            results.append(arithmetic.add(a, b))
            events.append(arithmetic.flags.total)
    finally:
        numba.set_num_threads(before)
    assert_same(results[-1], results[0])
    assert events[-1] == events[0]


def test_a_processor_that_flushes_subnormal_numbers_changes_nothing():
    """Libraries compiled for speed set this for the whole thread; torch does on request."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    x, half = np.full(9, 2.0**-133, np.float32), np.full(9, 0.5, np.float32)
    arithmetic = Arithmetic("bfloat16", rounding="toward_positive")
    torch.set_flush_denormal(True)
    try:
        result = arithmetic.multiply(x, half)
    finally:
        torch.set_flush_denormal(False)
    assert (result.view(np.uint32) == 1 << 16).all()
    assert arithmetic.flags.underflow == 9


# The door ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fmt", ["float64", "e11m4", "e8m30", Format("far", 8, 8, bias=900)], ids=str
)
def test_a_format_that_is_too_wide_is_refused(fmt):
    with pytest.raises(ValueError, match="precision of at most 24"):
        Arithmetic(fmt)


def test_a_scale_has_no_zero_to_flush_to():
    with pytest.raises(ValueError, match="no zero"):
        Arithmetic("float8_e8m0fnu", flush_to_zero=True)


def test_an_arithmetic_survives_pickling():
    arithmetic = Arithmetic("bfloat16", rounding="toward_zero")
    arithmetic.add([1.0], 2.0**-20, out=np.zeros(1, np.float32))
    copy = pickle.loads(pickle.dumps(arithmetic))
    assert repr(copy) == repr(arithmetic)
    assert copy.flags.inexact == 1
    assert copy.add(1, 2.0**-20) == 1
    assert arithmetic.flags.inexact == 1

"""What `lowprec verify` holds the library to is right: against fractions, SoftFloat and mpmath."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import combinations

import numpy as np
import oracle as fractions_oracle
import pytest
from exact_arithmetic import EVENTS, outcome
from softfloat_peer import ExceptionFlag, RoundingMode, softfloat
from table import DETERMINISTIC, assert_same, name

import lowprec as lp
from lowprec import Rounding
from lowprec.arithmetic.flags import Events
from lowprec.kernels.oracle import integers as integer_oracle
from lowprec.kernels.oracle import loops as integer_oracle_loops
from lowprec.verification.codes import operand_bits, result_bits, turns
from lowprec.verification.functions import FUNCTIONS, true_value
from lowprec.verification.pairs import PAIRED_FUNCTIONS, true_pair_value
from lowprec.verification.samples import draw, edges

FORMATS = [lp.bfloat16, lp.float16, lp.float8_e4m3fn, lp.float8_e5m2]
ARITY = {operation: arity for operation, (arity, _) in integer_oracle.OPERATIONS.items()}


def floats(bits):
    return bits.view(np.float32)


def compute(operation, fmt, rounding, codes):
    """Return the oracle's results as float32, and its events."""
    codes = [np.ascontiguousarray(c, np.uint16) for c in codes]
    out, events = np.empty_like(codes[0]), np.zeros(5, np.int64)
    layout, rule = integer_oracle.code_fields(fmt), integer_oracle.rule_of(Rounding(rounding))
    loop = integer_oracle_loops.oracle(operation)
    loop(codes[0], codes[len(codes) > 1], codes[-1], out, events, layout, rule)
    return floats(result_bits(fmt)[out]), Events(*events.tolist())


# The oracle of integers --------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", FORMATS, ids=name)
@pytest.mark.parametrize("operation", ARITY)
def test_integers_agree_with_fractions(operation, fmt):
    codes = draw(fmt, ARITY[operation], 160, np.random.default_rng(3))
    operands = [floats(operand_bits(fmt)[c]).tolist() for c in codes]
    for rounding in DETERMINISTIC:
        expected = [outcome(operation, row, fmt, rounding) for row in zip(*operands, strict=True)]
        actual, events = compute(operation, fmt, rounding, codes)
        assert_same(actual, [o.value for o in expected], operands[0])
        assert events == tuple(sum(event in o.events for o in expected) for event in EVENTS)


SOFTFLOAT = {
    "add": softfloat.f16_add,
    "subtract": softfloat.f16_sub,
    "multiply": softfloat.f16_mul,
    "divide": softfloat.f16_div,
    "sqrt": softfloat.f16_sqrt,
    "fma": softfloat.f16_mul_add,
}
SOFTFLOAT_MODES = {
    "ties_to_even": RoundingMode.NEAR_EVEN,
    "ties_to_away": RoundingMode.NEAR_MAX_MAG,
    "toward_zero": RoundingMode.MIN_MAG,
    "toward_negative": RoundingMode.MIN,
    "toward_positive": RoundingMode.MAX,
}
SOFTFLOAT_FLAGS = [
    ExceptionFlag.INVALID,
    ExceptionFlag.INFINITE,
    ExceptionFlag.OVERFLOW,
    ExceptionFlag.UNDERFLOW,
    ExceptionFlag.INEXACT,
]


@pytest.fixture
def softfloat_state():
    """Give SoftFloat our definition of tiny, and put its state back afterwards."""
    softfloat.set_tininess_mode(softfloat.TininessMode.BEFORE_ROUNDING)
    yield
    softfloat.set_rounding_mode(RoundingMode.NEAR_EVEN)
    softfloat.set_exception_flags(0)


@pytest.mark.usefixtures("softfloat_state")
@pytest.mark.parametrize("rounding", SOFTFLOAT_MODES)
@pytest.mark.parametrize("operation", SOFTFLOAT)
def test_integers_agree_with_softfloat(operation, rounding):
    codes = draw(lp.float16, ARITY[operation], 4000, np.random.default_rng(5))
    # SoftFloat signals invalid for signalling NaN, and for 0·inf + NaN
    codes = [np.where(np.isnan(floats(operand_bits(lp.float16)[c])), 0x3C00, c) for c in codes]
    softfloat.set_rounding_mode(SOFTFLOAT_MODES[rounding])
    theirs, counts = [], dict.fromkeys(SOFTFLOAT_FLAGS, 0)
    for row in zip(*(floats(operand_bits(lp.float16)[c]).tolist() for c in codes), strict=True):
        softfloat.set_exception_flags(0)
        theirs.append(SOFTFLOAT[operation](*map(softfloat.Float16.from_float, row)).to_float())
        raised = int(softfloat.get_exception_flags())
        counts = {flag: count + bool(raised & flag) for flag, count in counts.items()}
    actual, events = compute(operation, lp.float16, rounding, codes)
    assert_same(actual, theirs)
    assert events == tuple(counts.values())


@pytest.mark.parametrize("rounding", DETERMINISTIC)
@pytest.mark.parametrize("fmt", FORMATS, ids=name)
def test_encoding_by_integers_agrees_with_fractions(fmt, rounding):
    rng = np.random.default_rng(7)
    patterns = np.concatenate(
        [
            rng.choice(turns(fmt), 300),
            rng.integers(0, 1 << 32, 100, dtype=np.uint32),
            np.array([0, 1 << 31, 0x7F800000, 0xFF800000, 0x7F800001, 0xFFC00000], np.uint32),
        ]
    )
    out = np.empty(patterns.size, np.uint16)
    layouts = [integer_oracle.code_fields(f) for f in (lp.float32, fmt)]
    integer_oracle_loops.encoder()(
        patterns, out, *layouts, integer_oracle.rule_of(Rounding(rounding))
    )
    x = floats(patterns).tolist()
    expected = [fractions_oracle.round_exactly(v, fmt, rounding) for v in x]
    assert_same(floats(result_bits(fmt)[out]), expected, x)
    are_nan = np.isnan(x)
    signs = (patterns[are_nan] >> 31 << (fmt.bits - 1)).tolist()
    assert out[are_nan].tolist() == [sign | fmt.nan_code for sign in signs]


@pytest.mark.parametrize("fmt", FORMATS, ids=name)
def test_codes_stand_for_what_decode_says(fmt):
    codes = np.arange(1 << fmt.bits).astype(fmt.code_dtype)
    values = lp.decode(codes, fmt)
    assert_same(floats(result_bits(fmt)), values, codes)
    assert_same(floats(operand_bits(fmt)), values, codes)
    are_nan = np.isnan(values)
    payloads = operand_bits(fmt)[are_nan]
    assert np.unique(payloads).size == are_nan.sum(), "each NaN is an operand of its own"


@pytest.mark.parametrize("rounding", ["stochastic", "stochastic_equal"])
def test_what_draws_random_bits_has_no_table_of_truth(rounding):
    with pytest.raises(ValueError, match="random bits"):
        integer_oracle.rule_of(Rounding(rounding))


# Values of functions -----------------------------------------------------------------------------


def bounds(truth):
    """Return the numbers between which a value that was cut off lies; the same if it was not."""
    sign = -1 if truth.negative else 1
    unit = Fraction(2) ** truth.exponent
    is_cut = truth.significand.bit_length() == 41 and truth.significand & 1
    return sorted(sign * (truth.significand + d) * unit for d in ((-1, 1) if is_cut else (0, 0)))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_values_are_those_that_mpmath_gives_with_more_bits(function):
    mpmath = pytest.importorskip("mpmath", reason="mpmath is not installed")
    formulas = {
        "exp2": lambda x: mpmath.power(2, x),
        "log2": lambda x: mpmath.log(x) / mpmath.log(2),
        "sigmoid": lambda x: (1 + mpmath.tanh(x / 2)) / 2,
        "cbrt": lambda x: mpmath.sign(x) * mpmath.exp(mpmath.log(abs(x)) / 3),
        "rsqrt": lambda x: mpmath.sqrt(1 / x),
        "reciprocal": lambda x: mpmath.mpf(1) / x,
    }
    rng = np.random.default_rng(11)
    drawn = np.ldexp(rng.uniform(1, 2, 40), rng.integers(-140, 7, 40)) * rng.choice([-1, 1], 40)
    for x in [*drawn.tolist(), 2.0**-133, -(2.0**-133), 1.5, 27.0, 0.125]:
        truth = true_value(function, x)
        if truth.special is not None:
            assert math.isnan(truth.special) or x in (0, 1)
            continue
        with mpmath.workprec(1500):
            value = formulas.get(function, getattr(mpmath, function, None))(mpmath.mpf(x))
            low, high = (mpmath.mpf(b.numerator) / b.denominator for b in bounds(truth))
            assert low - mpmath.mpf(2) ** -1400 <= value <= high + mpmath.mpf(2) ** -1400


@pytest.mark.parametrize(
    ("function", "x", "special", "events"),
    [
        ("log", 0.0, -math.inf, 2),
        ("log", -1.0, math.nan, 1),
        ("log1p", -1.0, -math.inf, 2),
        ("rsqrt", -0.0, -math.inf, 2),
        ("reciprocal", math.inf, 0.0, 0),
        ("sin", math.inf, math.nan, 1),
        ("exp", math.nan, math.nan, 0),
        ("log10", 1.0, 0.0, 0),
        ("tanh", -0.0, -0.0, 0),
    ],
)
def test_special_values_come_with_their_events(function, x, special, events):
    truth = true_value(function, x)
    assert_same(truth.special, special)
    assert truth.events == events


def test_a_value_that_cannot_be_told_from_a_short_number_is_no_proof(monkeypatch):
    pytest.importorskip("mpmath", reason="mpmath is not installed")
    monkeypatch.setattr("lowprec.verification.functions.CLAMPS", {})
    with pytest.raises(ArithmeticError, match="too near"):
        true_value("erf", 100.0)  # 1 - 2**-14400


# Samples -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", [lp.bfloat16, lp.float16], ids=name)
@pytest.mark.parametrize("operation", ["add", "multiply", "divide", "fma"])
def test_samples_hold_what_is_rare(operation, fmt):
    """Overflows, subnormal results, cancellation, and ties, which quotients seldom are."""
    codes = draw(fmt, ARITY[operation], 40_000, np.random.default_rng(13))
    finite = np.all([np.isfinite(floats(operand_bits(fmt)[c])) for c in codes], axis=0)
    codes = [c[finite] for c in codes]
    modes = ("ties_to_even", "ties_to_away", "ties_toward_zero")
    even, away, toward = (compute(operation, fmt, mode, codes)[0] for mode in modes)
    last = abs(floats(operand_bits(fmt)[codes[-1]])) / 4
    assert np.mean(np.isinf(even)) > 0.005
    assert np.mean((abs(even) < fmt.smallest_normal) & (even != 0)) > 0.005
    assert np.mean(away != toward) > (0.0005 if operation == "divide" else 0.01)
    if operation in ("add", "fma"):
        assert np.mean((abs(even) < last) & (even != 0)) > 0.1


def test_samples_repeat():
    first, second = (draw(lp.float16, 3, 400, np.random.default_rng(1)) for _ in range(2))
    assert all((a == b).all() for a, b in zip(first, second, strict=True))


def test_edges_are_edges():
    for first, second in combinations(FORMATS, 2):
        assert first == second or edges(first).size > 20
    assert {0, 0x8000, 0x7C00, 0x7BFF, 0x3C00, 0x0400, 0x0001} <= set(edges(lp.float16).tolist())


@pytest.mark.parametrize("function", PAIRED_FUNCTIONS)
def test_values_of_pairs_are_those_that_mpmath_gives_with_more_bits(function):
    mpmath = pytest.importorskip("mpmath", reason="mpmath is not installed")
    rng = np.random.default_rng(13)
    x, y = np.ldexp(rng.uniform(1, 2, (2, 60)), rng.integers(-9, 6, (2, 60)))
    short = [
        (9.0, 0.5),
        (2.25, -1.5),
        (2.0, -133.0),
        (3.0, 4.0),
        (0.21875, 15.0),
        (1 + 2.0**-7, 2.0**-133),
    ]
    for a, b in [*zip(x.tolist(), y.tolist(), strict=True), *short]:
        truth = true_pair_value(function, a, b)
        with mpmath.workprec(1500):
            value = getattr(mpmath, function)(mpmath.mpf(a), mpmath.mpf(b))
            if truth.exponent == 600:  # beyond every format
                assert value > mpmath.mpf(2) ** 600
                continue
            low, high = (mpmath.mpf(u.numerator) / u.denominator for u in bounds(truth))
            assert low - mpmath.mpf(2) ** -1400 <= value <= high + mpmath.mpf(2) ** -1400


@pytest.mark.parametrize(
    ("x", "y", "special", "events"),
    [
        (-8.0, 1 / 3, math.nan, 1),
        (-0.0, -3.0, -math.inf, 2),
        (0.0, -math.inf, math.inf, 0),
        (-math.inf, -3.0, -0.0, 0),
        (0.5, -math.inf, math.inf, 0),
        (-2.0, math.inf, math.inf, 0),
        (math.nan, 2.0, math.nan, 0),
    ],
)
def test_special_powers_are_those_of_the_standard(x, y, special, events):
    truth = true_pair_value("power", x, y)
    assert (repr(truth.special), truth.events) == (repr(special), events)
    assert true_pair_value("power", -1.0, math.inf) == true_pair_value("power", math.nan, -0.0)

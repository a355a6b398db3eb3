"""The events of IEEE 754-2019, section 7, one by one, and how they are counted."""

import os
import threading

import numpy as np
import pytest

import lowprec as lp
from lowprec.arithmetic import Arithmetic
from lowprec.arithmetic.flags import Events, Flags

SMALLEST = lp.float16.smallest_subnormal
NORMAL = lp.float16.smallest_normal
MAX = lp.float16.max

INVALID = Events(invalid=1)
OVERFLOW = Events(overflow=1, inexact=1)
UNDERFLOW = Events(underflow=1, inexact=1)
INEXACT = Events(inexact=1)
NOTHING = Events()


@pytest.mark.parametrize(
    ("operation", "operands", "events"),
    [
        ("subtract", (np.inf, np.inf), INVALID),
        ("add", (np.inf, np.inf), NOTHING),
        ("add", (np.nan, np.inf), NOTHING),
        ("multiply", (0.0, -np.inf), INVALID),
        ("fma", (0.0, np.inf, 1.0), INVALID),
        ("fma", (0.0, np.inf, np.nan), NOTHING),
        ("fma", (2.0, np.inf, -np.inf), INVALID),
        ("divide", (0.0, 0.0), INVALID),
        ("divide", (np.inf, np.inf), INVALID),
        ("divide", (-1.0, 0.0), Events(divide_by_zero=1)),
        ("divide", (np.inf, 0.0), NOTHING),
        ("divide", (1.0, np.inf), NOTHING),
        ("divide", (1.0, 3.0), INEXACT),
        ("sqrt", (-1.0,), INVALID),
        ("sqrt", (-0.0,), NOTHING),
        ("sqrt", (2.0,), INEXACT),
        ("remainder", (1.0, 0.0), INVALID),
        ("remainder", (np.inf, 1.0), INVALID),
        ("remainder", (5.0, 3.0), NOTHING),
        ("floor_divide", (1.0, 0.0), Events(divide_by_zero=1)),
        ("floor_divide", (np.inf, 0.0), NOTHING),
        ("floor_divide", (np.inf, 2.0), INVALID),
        ("floor_divide", (0.0, 0.0), INVALID),
        ("floor_divide", (-1.0, np.inf), NOTHING),
        ("floor_divide", (7.0, 2.0), NOTHING),
        ("floor_divide", (MAX, 3.0), INEXACT),
        ("floor_divide", (MAX, SMALLEST), OVERFLOW),
        ("mod", (1.0, 0.0), INVALID),
        ("mod", (np.inf, 1.0), INVALID),
        ("mod", (-1.0, np.inf), NOTHING),
        ("mod", (-7.0, 4.0), NOTHING),
        ("mod", (-SMALLEST, 1.0), INEXACT),
        ("square", (MAX,), OVERFLOW),
        ("square", (SMALLEST,), UNDERFLOW),
        ("abs", (-np.inf,), NOTHING),
        ("negative", (SMALLEST,), NOTHING),
        ("negative", (np.nan,), NOTHING),
        ("minimum", (np.nan, 1.0), NOTHING),
        ("maximum", (SMALLEST, 0.0), NOTHING),
        ("add", (MAX, 8.0), INEXACT),
        ("add", (MAX, 16.0), OVERFLOW),
        ("multiply", (MAX, -2.0), OVERFLOW),
        ("multiply", (NORMAL, 0.5), NOTHING),
        ("multiply", (SMALLEST, 0.5), UNDERFLOW),
        ("divide", (SMALLEST, 3.0), UNDERFLOW),
        ("multiply", (NORMAL, 1 - 2.0**-13), NOTHING),  # the operand is rounded to 1
        ("add", (1.0, SMALLEST), INEXACT),
    ],
)
def test_an_operation_has_the_events_of_the_standard(operation, operands, events):
    half = Arithmetic("float16")
    getattr(half, operation)(*operands)
    assert half.flags[operation] == half.flags.total == events


def test_tininess_is_found_before_rounding():
    """The product rounds to the smallest normal number, from below."""
    half = Arithmetic("float16")
    assert half.multiply(NORMAL * (1 + 2.0**-10), 1 - 2.0**-10) == NORMAL
    assert half.flags.total == UNDERFLOW


def test_overflow_depends_on_the_mode():
    """Toward zero, what lies between max and the next value does not overflow (section 7.4)."""
    for rounding, small, large in [
        ("toward_zero", INEXACT, OVERFLOW),
        ("toward_negative", INEXACT, OVERFLOW),
        ("toward_positive", OVERFLOW, OVERFLOW),
        ("away_from_zero", OVERFLOW, OVERFLOW),
        ("to_odd", INEXACT, OVERFLOW),
        ("ties_toward_zero", INEXACT, OVERFLOW),
    ]:
        half = Arithmetic("float16", rounding=rounding)
        half.add(MAX, 1.0)
        assert half.flags.total == small, rounding
        half.flags.clear()
        half.add(MAX, 32.0)
        assert half.flags.total == large, rounding


def test_stochastic_overflow_is_what_the_random_bits_decide():
    half = Arithmetic("float16", rounding="stochastic", rng=0)
    result = half.add(np.full(10_000, MAX, np.float32), 16.0)
    assert half.flags.overflow == np.isinf(result).sum()
    assert 4500 < half.flags.overflow < 5500
    assert half.flags.inexact == 10_000


def test_saturated_results_overflow_all_the_same():
    half = Arithmetic("float16", overflow="saturate")
    assert half.multiply(MAX, 2.0) == MAX
    assert half.flags.total == OVERFLOW
    half.flags.clear()
    assert half.divide(1.0, 0.0) == np.inf
    assert half.flags.total == Events(divide_by_zero=1)


def test_flushed_results_underflow_even_if_a_subnormal_number_would_be_exact():
    half = Arithmetic("float16", flush_to_zero=True)
    assert half.multiply(NORMAL, -0.5) == 0
    assert half.flags.total == UNDERFLOW


def test_operand_conversion_has_no_events():
    half = Arithmetic("float16")
    half.add([1 / 3, 1e9, 1e-30], 0)
    assert half.flags.total == NOTHING
    assert not half.flags


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 63, 65, 1000])
def test_every_element_counts_once(size):
    half = Arithmetic("float16")
    ones = np.ones(size, np.float32)
    half.divide(ones, 3)
    half.divide(ones[::-1], 0)
    assert half.flags["divide"] == Events(divide_by_zero=size, inexact=size)


def test_counts_are_kept_by_operation_until_they_are_cleared():
    half = Arithmetic("float16")
    for _ in range(3):
        half.divide(1, 3)
    half.sqrt([-1.0, 2.0])
    assert half.flags.by_operation == {"divide": Events(inexact=3), "sqrt": Events(1, 0, 0, 0, 1)}
    assert (half.flags.invalid, half.flags.inexact) == (1, 4)
    assert repr(half.flags).endswith("inexact=4)")
    half.flags.clear()
    assert half.flags.total == NOTHING
    assert half.flags.by_operation == {}


@pytest.mark.parametrize("fmt", ["float16", "bfloat16", "float8_e4m3fn", "float32"])
def test_rare_events_are_counted_beside_usual_ones(fmt):
    """In every place of a vector of eight, and in what remains at the end."""
    smallest, largest = (getattr(lp.get_format(fmt), n) for n in ("smallest_subnormal", "max"))
    cases = [  # of a / b
        (1.0, 3.0, INEXACT),
        (0.0, 3.0, NOTHING),
        (0.0, 0.0, INVALID),
        (1.0, 0.0, Events(divide_by_zero=1)),
        (largest, 0.5, OVERFLOW),
        (smallest, -3.0, UNDERFLOW),
        (np.nan, 1.0, NOTHING),
    ]
    rng = np.random.default_rng(1)
    for size in (1, 8, 13, 203):
        drawn = [cases[n] for n in rng.integers(0, len(cases), size)]
        a, b, expected = zip(*drawn, strict=True)
        arithmetic = Arithmetic(fmt)
        arithmetic.divide(np.array(a), np.array(b))
        assert arithmetic.flags.total == Events(*map(sum, zip(*expected, strict=True)))


@pytest.mark.parametrize("operation", ["add", "subtract", "remainder"])
def test_multiples_of_the_smallest_number_do_not_underflow(operation):
    """All pairs; only flushing makes them: IEEE 754 knows no inexact tiny sum."""
    x = lp.decode(np.arange(256, dtype=np.uint8), "float8_e5m2")
    for flush in (False, True):
        arithmetic = Arithmetic("float8_e5m2", flush_to_zero=flush)
        result = getattr(arithmetic, operation)(x[:, None], x)
        assert (arithmetic.flags.underflow > 0) == flush
        if operation == "remainder":
            assert (arithmetic.flags.inexact > 0) == flush
        assert (result == 0).any()


def test_results_are_the_same_without_flags():
    x = np.linspace(-2, 3, 1001).astype(np.float32)
    counting, silent = Arithmetic("bfloat16"), Arithmetic("bfloat16", flags=False)
    assert (counting.multiply(x, x) == silent.multiply(x, x)).all()
    with pytest.raises(ValueError, match="flags=True"):
        _ = silent.flags


def test_threads_do_not_lose_counts():
    half = Arithmetic("float16")
    x, out = np.ones(10, np.float32), np.empty((4, 10), np.float32)
    work = [
        threading.Thread(
            target=lambda row: [half.divide(x, 3, out=row) for _ in range(500)], args=(o,)
        )
        for o in out
    ]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert half.flags.inexact == 4 * 500 * 10


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_counts_while_the_parent_holds_the_lock():
    from lowprec.arithmetic import flags as module

    flags = Flags()
    with module._lock:
        child = os.fork()
        if child == 0:
            flags.record("add", np.ones(5, np.int64))
            os._exit(0 if flags.inexact == 1 else 1)
        assert os.waitpid(child, 0)[1] == 0
